"""What every notebook does beside its finding: parameters, results, and output that is the same each time.

    from opdlib import notebook
    notebook.setup()
    settings = notebook.check(globals(), "pair", "source", "trained", "skip", "atol")
    results = notebook.load(**settings.compared)

`python -m opdlib.notebook clean FILE...` takes from executed notebooks what differs between two runs.
"""

from opdlib.notebook.cleaning import clean
from opdlib.notebook.display import figure, finding, glue, say, setup
from opdlib.notebook.loading import load, load_stored, provenance
from opdlib.registry.settings import Settings, check
