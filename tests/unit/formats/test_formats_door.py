from __future__ import annotations

import inspect

from asterope import formats


def test_every_exported_name_exists_and_is_documented():
    for name in formats.__all__:
        exported = getattr(formats, name)
        assert not inspect.ismodule(exported), f"{name} is a module, not what it names"
        if callable(exported) and not hasattr(exported, "__args__"):
            assert exported.__doc__, name


def test_exports_are_sorted_as_constants_classes_functions():
    constants = [n for n in formats.__all__ if n.isupper()]
    classes = [n for n in formats.__all__ if n[0].isupper() and not n.isupper()]
    functions = [n for n in formats.__all__ if n[0].islower()]
    assert formats.__all__ == sorted(constants) + sorted(classes) + sorted(functions)
