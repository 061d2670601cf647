"""mgc: for this music and these genres, is a frozen pretrained encoder better than a network from scratch?"""


def __getattr__(name: str) -> str:
    """`__version__`, read from the installed package when asked for: that takes 0.1 s."""
    if name == "__version__":
        from importlib.metadata import version

        return version("mgc")
    raise AttributeError(f"module 'mgc' has no attribute {name!r}")
