import importlib

import llmalign


def test_public_names_stay_functions_whatever_was_imported_before():
    for module in ("llmalign.evaluation.run", "llmalign.training", "llmalign.recipe"):
        importlib.import_module(module)
    for name in llmalign.__all__:
        assert callable(getattr(llmalign, name)), name
