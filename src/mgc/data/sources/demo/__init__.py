"""The demo set: real scores with real labels, made on the spot where nothing can be downloaded.

`render` takes 40 pieces each of six styles from the scores that come with music21, plays 12 seconds of each
with symusic and the General MIDI sound font of pretty_midi, and writes clips and a manifest:

    folder/<style>/<piece>.flac    22,050 Hz, mono, 16 bit
    folder/demo.json               what was asked for, and every piece that was passed over, with the reason
    folder/tracks.csv              path, genre, artist, title; written last: where it is, the set is complete

What tells the styles apart is the notes alone. Every style is played with the very same treatments
(instrument, transposition, tempo), handed out by seed; every note has the same velocity; every clip the same
loudness. The tempo is in quarter notes a minute, so that a reel stays busier than a mass, as it is written.

The group ("artist" in the manifest) is what a split must not divide: a mass, a hymn tune, a quartet.
"""

from mgc.data.sources.demo.excerpts import CLIP_SECONDS
from mgc.data.sources.demo.rendering import PIECES_PER_STYLE, render
from mgc.data.sources.demo.styles import STYLES
from mgc.data.sources.demo.synthesis import LOUDNESS_DBFS, SAMPLE_RATE_HZ

__all__ = ["CLIP_SECONDS", "LOUDNESS_DBFS", "PIECES_PER_STYLE", "SAMPLE_RATE_HZ", "STYLES", "render"]
