"""Decoding, resampling and cutting audio: the only package that opens audio files."""

from mgc.audio.decoding import (
    SUFFIXES,
    AudioError,
    AudioFile,
    Clip,
    content_hash,
    decode,
    inspect,
    load,
    open_bytes,
)
from mgc.audio.loader import Window, Windowing, load_windows, windows
from mgc.audio.mp3 import KBITS

__all__ = [
    "KBITS",
    "SUFFIXES",
    "AudioError",
    "AudioFile",
    "Clip",
    "Window",
    "Windowing",
    "content_hash",
    "decode",
    "inspect",
    "load",
    "load_windows",
    "open_bytes",
    "windows",
]
