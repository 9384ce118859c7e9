"""tickcast: from an exchange's binary ticks to a scored price prediction.

The core (sbe, ticks, wire, bars, features, model, training) imports the standard library and numpy
alone, does no I/O and never reads the clock: bytes, arrays and times are passed in. Whatever talks to
the world lives in ``tickcast.adapters``.
"""
