"""What a call shows in a notebook, without a notebook."""

from collections.abc import Callable
from typing import Any

from IPython.testing.globalipapp import start_ipython
from IPython.utils.capture import capture_output


def shown(call: Callable[[], Any]) -> tuple[Any, list[dict[str, Any]]]:
    """What a call displays in a notebook: data and metadata of each output."""
    start_ipython()
    with capture_output() as captured:
        value = call()
    return value, [{"data": o.data, "metadata": o.metadata} for o in captured.outputs]
