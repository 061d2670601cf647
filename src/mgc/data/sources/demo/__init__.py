"""The demo dataset: real scores with real labels, rendered to audio on this machine without a download.

`render` takes 40 pieces in each of six styles from the scores that come with music21, renders 12 seconds of
each with symusic and the General MIDI sound font of pretty_midi, and writes

    folder/<style>/<piece>.flac    22,050 Hz, mono, 16 bit
    folder/demo.json               what was rendered; rendered again when it differs
    folder/tracks.csv              path, genre, artist, title, instruments; written last

Clips are made the way such music is performed and recorded:

- All parts of the score are kept, at their written pitch and in the usual tempo of the style.
- Each style has the ensembles that commonly perform it: a choir, a choir with organ, viols, a fiddle. Styles
  share them where this is plausible, so the instruments narrow a style down but rarely give it away. Only
  string quartets (solo strings) and fiddle tunes (one melody) have a sound of their own.
- Recordings differ in pitch standard, balance, room, spectral tilt and noise, in the same way in every style.
  Without this, the few sounds of one sound font are recognised exactly, as no real instruments are: the floor
  on log-mel statistics scored 0.787, above the CNN (0.758) and musicnn (0.575).

The group (`artist` in the manifest) is what a split must not divide: a mass, a hymn tune, a quartet.
"""

from mgc.data.sources.demo.performance import CLIP_SECONDS, LOUDNESS_DBFS, SAMPLE_RATE_HZ
from mgc.data.sources.demo.rendering import PIECES_PER_STYLE, render
from mgc.data.sources.demo.styles import STYLES

__all__ = ["CLIP_SECONDS", "LOUDNESS_DBFS", "PIECES_PER_STYLE", "SAMPLE_RATE_HZ", "STYLES", "render"]
