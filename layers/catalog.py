"""Which layers there are and which function gets which.

`core` is this repository's own package, as it lies in `layers/core`. `layers.build` makes the others:
third-party packages, pinned in `layers/<name>/requirements.txt`, and `site`, what the API serves as it is.
They are cut by who needs them, so that no function loads or pays a cold start for what it does not use, and
none has more layers than Lambda allows (`MOST_LAYERS`).

Lambda's runtime brings boto3 and urllib3 too, in versions that change without notice. Those of the layer
`data` take precedence: Lambda puts a layer's `python` folder, /opt/python, on `sys.path` before the runtime's
own packages in /var/lang/lib/python3.13/site-packages and /var/runtime ("Runtime search path" of Python
functions in its Developer Guide).
"""

from collections.abc import Mapping

THIRD_PARTY = ("data", "inference", "training", "postgres")
BUILT = (*THIRD_PARTY, "site")
MOST_LAYERS = 5  # of a function, by Lambda

OF_FUNCTION: Mapping[str, tuple[str, ...]] = {
    "predict_stream": ("core", "data", "inference"),
    "archive_ticks": ("core", "data"),
    "train_model": ("core", "data", "inference", "training", "postgres"),
    "evaluate_model": ("core", "data", "inference", "postgres"),
    "promote_model": ("core", "data"),
    "serve_predictions": ("core", "data", "site"),
    "score_predictions": ("core", "data", "postgres"),
    "audit_predictions": ("core", "data", "inference", "postgres"),
    "report_condition": ("core", "data", "postgres"),
    "list_stale_hours": ("core", "data", "postgres"),
    "load_history": ("core", "data", "postgres"),
    "mark_repaired": ("core", "data", "postgres"),
    "plan_backfill": ("core", "data"),
    "fetch_history": ("core", "data"),
    "send_signals": ("core", "data"),
}
