"""Recordings that a player plays: a black picture and silence for as long as the recording lasted, and a transcript."""

import struct
from collections.abc import Sequence

_IDENTITY = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_TIMESCALE = 1000

# 1024 samples of silence in AAC-LC, one channel, and what tells a decoder so.
_AUDIO_FRAME = bytes.fromhex("00c800802380")
_AUDIO_CONFIG = bytes.fromhex("1208")
_AUDIO_RATE = 44_100
_AUDIO_FRAME_SAMPLES = 1024

# 16 by 16 pixels of H.264 baseline: one macroblock of raw samples, luma 16 and chroma 128.
_SIDE = 16
_SPS = bytes.fromhex("6742000afb88")
_PPS = bytes.fromhex("68ce3880")
_SLICE = bytes.fromhex("6588840868") + bytes([16]) * _SIDE * _SIDE + bytes([128]) * (_SIDE * _SIDE // 2) + b"\x80"


def mp4(seconds: int) -> bytes:
    """Picture and sound."""
    picture, sound = struct.pack(">I", len(_SLICE)) + _SLICE, _silence(seconds)
    ftyp = _box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41")
    start = len(ftyp) + 8
    moov = _moov(seconds, _video_track(1, seconds, start), _audio_track(2, seconds, start + len(picture)))
    return ftyp + _box(b"mdat", picture, sound) + moov


def m4a(seconds: int) -> bytes:
    """Sound alone."""
    ftyp = _box(b"ftyp", b"M4A \0\0\2\0M4A mp42isom")
    return ftyp + _box(b"mdat", _silence(seconds)) + _moov(seconds, _audio_track(1, seconds, len(ftyp) + 8))


def vtt(names: Sequence[str], seconds: int) -> bytes:
    """Everybody says one sentence, one after the other."""
    times = [_vtt_time(seconds * index / len(names)) for index in range(len(names) + 1)]
    cues = [
        f"{number}\n{begin} --> {end}\n{' '.join(name.split())}: I am here.\n"
        for number, (name, begin, end) in enumerate(zip(names, times, times[1:], strict=False), 1)
    ]
    return "\n".join(["WEBVTT\n", *cues]).encode()


def _vtt_time(seconds: float) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}.{ms % 1000:03}"


def _audio_frames(seconds: int) -> int:
    return -(-seconds * _AUDIO_RATE // _AUDIO_FRAME_SAMPLES)


def _silence(seconds: int) -> bytes:
    return _AUDIO_FRAME * _audio_frames(seconds)


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def _full_box(kind: bytes, flags: int, *parts: bytes) -> bytes:
    """One with a version, 0, and flags."""
    return _box(kind, struct.pack(">I", flags), *parts)


def _moov(seconds: int, *tracks: bytes) -> bytes:
    head = struct.pack(">8xIIIH10x", _TIMESCALE, seconds * _TIMESCALE, 0x10000, 0x100)
    return _box(b"moov", _full_box(b"mvhd", 0, head, _IDENTITY, struct.pack(">24xI", len(tracks) + 1)), *tracks)


def _video_track(track_id: int, seconds: int, offset: int) -> bytes:
    avcc = b"\1" + _SPS[1:4] + b"\xff\xe1" + struct.pack(">H", len(_SPS)) + _SPS
    avcc += b"\1" + struct.pack(">H", len(_PPS)) + _PPS
    entry = struct.pack(">6xH16xHHII4xH32xHh", 1, _SIDE, _SIDE, 0x480000, 0x480000, 1, 24, -1)
    return _track(
        track_id,
        seconds,
        handler=b"vide",
        size=_SIDE,
        header=_full_box(b"vmhd", 1, bytes(8)),
        entry=_box(b"avc1", entry, _box(b"avcC", avcc)),
        timescale=_TIMESCALE,
        samples=(1, seconds * _TIMESCALE, 4 + len(_SLICE)),
        offset=offset,
    )


def _audio_track(track_id: int, seconds: int, offset: int) -> bytes:
    decoder = struct.pack(">BB3xII", 0x40, 0x15, 0, 0) + bytes([5, len(_AUDIO_CONFIG)]) + _AUDIO_CONFIG
    stream = struct.pack(">HB", track_id, 0) + bytes([4, len(decoder)]) + decoder + bytes([6, 1, 2])
    entry = struct.pack(">6xH8xHH4xI", 1, 1, 16, _AUDIO_RATE << 16)
    return _track(
        track_id,
        seconds,
        handler=b"soun",
        size=0,
        header=_full_box(b"smhd", 0, bytes(4)),
        entry=_box(b"mp4a", entry, _full_box(b"esds", 0, bytes([3, len(stream)]), stream)),
        timescale=_AUDIO_RATE,
        samples=(_audio_frames(seconds), _AUDIO_FRAME_SAMPLES, len(_AUDIO_FRAME)),
        offset=offset,
    )


def _track(
    track_id: int,
    seconds: int,
    *,
    handler: bytes,
    size: int,
    header: bytes,
    entry: bytes,
    timescale: int,
    samples: tuple[int, int, int],
    offset: int,
) -> bytes:
    """All samples are alike, (how many, how long, how many bytes), and lie together."""
    count, duration, length = samples
    head = struct.pack(">8xI4xI12xH2x", track_id, seconds * _TIMESCALE, 0 if size else 0x100)
    tkhd = _full_box(b"tkhd", 7, head, _IDENTITY, struct.pack(">II", size << 16, size << 16))
    mdhd = _full_box(b"mdhd", 0, struct.pack(">8xIIH2x", timescale, count * duration, 0x55C4))
    hdlr = _full_box(b"hdlr", 0, bytes(4), handler, bytes(12), b"sandbox\0")
    dinf = _box(b"dinf", _full_box(b"dref", 0, struct.pack(">I", 1), _full_box(b"url ", 1)))
    stbl = _box(
        b"stbl",
        _full_box(b"stsd", 0, struct.pack(">I", 1), entry),
        _full_box(b"stts", 0, struct.pack(">3I", 1, count, duration)),
        _full_box(b"stsc", 0, struct.pack(">4I", 1, 1, count, 1)),
        _full_box(b"stsz", 0, struct.pack(">2I", length, count)),
        _full_box(b"stco", 0, struct.pack(">2I", 1, offset)),
    )
    mdia = _box(b"mdia", mdhd, hdlr, _box(b"minf", header, dinf, stbl))
    return _box(b"trak", tkhd, mdia)
