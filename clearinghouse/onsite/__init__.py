"""On-site evaluation: a hospital runs a developer's ONNX graph on its own rows, beside its ledger.

For models that blind scoring cannot carry (deep trees, neural nets). Files travel in PySyft's
folder layout; no code of a submitter is ever run (docs/onsite.md).
"""
