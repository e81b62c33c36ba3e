from pathlib import Path


def data_folder() -> Path:
    """Where the broker keeps everything, and its visitors find it, unless told otherwise."""
    import platformdirs

    return platformdirs.user_data_path("execbroker")
