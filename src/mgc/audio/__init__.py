"""Decoding, resampling and cutting audio: the only package that opens audio files."""

from mgc.audio.decoding import SUFFIXES, AudioError, Clip, decode, inspect, load
from mgc.audio.loader import Window, Windowing, load_windows, windows
from mgc.audio.mp3 import KBITS

__all__ = [
    "KBITS", "SUFFIXES", "AudioError", "Clip", "Window", "Windowing", "decode", "inspect", "load",
    "load_windows", "windows",
]  # fmt: skip
