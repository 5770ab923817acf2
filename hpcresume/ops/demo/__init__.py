"""The demo: a real training interrupted three times, compared with the same training left alone.

`scenario` runs it, `compare` judges it, `live` and `views` show it, `plot` and `verdict` sum it up.
"""
