"""The documents of the IVOA working draft that v1.0 has otherwise, read into v1.0 and written from it: pure functions.

Section numbers are those of ExecutionBroker.tex (github.com/ivoa-std/ExecutionBroker). What the draft shares with the 2024
talks is left to `dialect2024`.

| the draft | v1.0 |
|---|---|
| `request: {..}` (5.2, 6.2), answered by `response: {result, offers, reasons}` | the document itself |
| `offers: [{ident, status, expires, request}]`, `offer: {..}` alone (5.2, 6.3) | a session; `status`, its phase until accepted |
| `job: {ident, phase, request}` (6.4) | a session that was accepted |
| `type` and `spec: {..}` (6.1) | `kind` and the fields beside it |
| `datetime: [{start, duration: {min, max}}]` (3.3) | `schedule.requested` |
| `cores: {requested: {min}, offered: {min, max}}` (3.2.1) | `cores: {min, max}`: asked and held |
| `notebook: {file}` (3.1.2), `requirements: [{astropy: ">= 6.1"}]` (3.4.1) | `location`, `requirements: [astropy>= 6.1]` |
| `repo`, `platforms: [..]` (6.2.4) | `image.locations`, `image.platform` |
| storage `amazon-s3-storage` (3.2.2) | a data resource of kind `S3-data-resource` |
| storage `ephemeral-storage` (3.2.2) | a `simple-storage-resource` of no lifetime |
| a volume's `filepath` (3.4.4) | `path`, the folder in which the resource is seen |
"""
