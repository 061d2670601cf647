"""mgc: for this music and these genres, is a frozen pretrained encoder better than a network from scratch?"""

from importlib.metadata import version

__version__ = version("mgc")
