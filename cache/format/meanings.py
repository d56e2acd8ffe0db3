"""The meaning of each flag and reason code for people, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping

from .schema import ORDINARY_FLAGS, Flag, Reason

FLAG_MEANINGS: dict[Flag, str] = {
    Flag.EXT_MISMATCH: "The file name indicates another format than the content has. The content was decoded.",
    Flag.TRUNCATED: "The file has less than 95 % of the audio that its header declares. The copy may be incomplete.",
    Flag.DECODE_GAPS: "Damaged packets, or much of the file, are missing in the decoded audio. The clip may have gaps.",
    Flag.UPSAMPLED: "The sample rate of the file is below that of the recipe, so high mel bands are almost empty.",
    Flag.MULTICHANNEL: "The file has more than two channels. The clip is their mean.",
    Flag.SILENT: "The whole clip is silent (peak below -80 dBFS), so its mel has no information. Check the file.",
    Flag.CLIPPED: "At least one sample in a thousand is at full scale. The recording may be distorted.",
    Flag.SHORT: "The audio is shorter than the clip, and is zero-padded. mel_frames counts the frames with audio.",
    Flag.LONG: "The audio is longer than the clip, and is cropped. offset_s is the start of the clip.",
    Flag.TEXT_RECODED: "The lyrics file is not plain UTF-8 (another encoding, or a byte order mark).",
    Flag.LYRICS_FAILED: "The lyrics are unreadable or in an unknown encoding, and ignored. Set --lyrics-encoding.",
    Flag.NO_LYRICS: "The source lists no lyrics, or the lyrics file is missing.",
    Flag.EMPTY_LYRICS: "The lyrics contain only white space.",
    Flag.INSTRUMENTAL: 'The lyrics are a single word that marks a track without lyrics, such as "instrumental".',
    Flag.LYRICS_TRUNCATED: "The lyrics have more tokens than the text encoder takes. The later ones were cut.",
    Flag.TEXT_CLEANED: "Markup, entities, time stamps, control or invisible characters were removed from the lyrics.",
    Flag.ENCODING_DOUBTFUL: "Two encodings fit the lyrics file; accents may be wrong. Extract with --lyrics-encoding.",
    Flag.NO_LABEL: "The source gives the track no genre. A model can predict its genres, but cannot be trained on it.",
}
"""One or two sentences per flag."""


def unusual_flags(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the tracks per flag without flags that most songs have, such as ``LONG``."""
    return {name: count for name, count in counts.items() if Flag[name] not in ORDINARY_FLAGS}


_CAUSES: dict[Reason, str] = {
    Reason.SRC_MISSING: "There is no file at the path, or it cannot be read.",
    Reason.SRC_DENIED: "The server of a URL refuses access.",
    Reason.SRC_TIMEOUT: "The server of a URL did not deliver the file in time, or failed at every attempt.",
    Reason.SRC_NOT_REGULAR: "The path is a folder, pipe or device instead of a file.",
    Reason.PATH_ESCAPE: "The path leads out of the root folder of the source.",
    Reason.EMPTY: "The file has no audio: zero bytes, or a header without content.",
    Reason.NOT_AUDIO: "The content is not audio, whatever the file name. Often it is an error page saved as a song.",
    Reason.TOO_SHORT: "The file has less audio than min_clip_s of the recipe.",
    Reason.TOO_LARGE: "The file exceeds a limit on bytes, hours, channels or sample rate. The detail states which.",
    Reason.BAD_HEADER: "No decoder accepts the header.",
    Reason.DECODE_ERROR: "The file is too damaged to decode.",
    Reason.UNSUPPORTED_CODEC: "No decoder supports this codec or format (such as a video), or the audio is encrypted.",
    Reason.DECODER_CRASH: "The decoder crashed on this file more than once. Other tracks are not affected.",
    Reason.DECODER_TIMEOUT: "Decoding took too long.",
    Reason.DECODER_MEMORY: "Decoding needed more memory than the limit per file.",
    Reason.NONFINITE: "Samples are NaN, infinite, or far too large.",
    Reason.WORKER_CRASH: "The track crashed its worker process three times.",
    Reason.LYRICS_CHANGED: "For added feature sets: the lyrics have changed since the extraction.",
    Reason.SOURCE_CHANGED: "The file changed while it was read or, for added feature sets, since the extraction.",
    Reason.EXTRACTOR_FAILED: "The extractor plug-in raised an error on this track. The detail states which.",
    Reason.DROPPED: "The track was taken down with mgc store drop.",
}

_REMEDIES: dict[Reason, str] = {
    Reason.SRC_MISSING: "Check --root, the paths in the source, and permissions. Then extract with --retry-failed.",
    Reason.SRC_DENIED: "Check the credentials in the environment. Then extract with --retry-failed.",
    Reason.SRC_TIMEOUT: "Check the network and the server. Then extract with --retry-failed.",
    Reason.SRC_NOT_REGULAR: "Correct the path in the source.",
    Reason.PATH_ESCAPE: "Move the file below the root, or set --root to a folder that contains all files.",
    Reason.EMPTY: "Download or copy the file again, then extract with --retry-failed.",
    Reason.NOT_AUDIO: "Download or copy the file again, then extract with --retry-failed.",
    Reason.TOO_SHORT: "Leave it out, or get the complete file.",
    Reason.TOO_LARGE: "Cut the file, or leave it out.",
    Reason.BAD_HEADER: "Convert the file or download it again, then extract with --retry-failed.",
    Reason.DECODE_ERROR: "Download or copy the file again, then extract with --retry-failed.",
    Reason.UNSUPPORTED_CODEC: "Convert the file to FLAC or WAV, then extract with --retry-failed.",
    Reason.DECODER_CRASH: "Convert the file with another program. log/ in the store has the decoder's last output.",
    Reason.DECODER_TIMEOUT: "Convert the file. On a slow disk, --retry-failed is enough.",
    Reason.DECODER_MEMORY: "Convert or cut the file.",
    Reason.NONFINITE: "Export the file again from its original.",
    Reason.WORKER_CRASH: "Convert the file with another program. log/ in the store has details.",
    Reason.LYRICS_CHANGED: "Restore the lyrics, then extract with --add and --retry-failed. Or extract a new store.",
    Reason.SOURCE_CHANGED: "Stop writing to it; for added feature sets, restore it. Then extract with --retry-failed.",
    Reason.EXTRACTOR_FAILED: "Report it to the author of the plug-in. Then extract with --add and --retry-failed.",
    Reason.DROPPED: "Nothing: it was taken down on request.",
}

REASON_MEANINGS: dict[Reason, tuple[str, str]] = {
    reason: (cause, _REMEDIES[reason]) for reason, cause in _CAUSES.items()
}
"""Cause and remedy of each reason code."""
