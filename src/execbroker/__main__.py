from execbroker.cli import main

main()
