"""The meaning of each flag and reason code for people, and what to do about it."""

from __future__ import annotations

from .schema import Flag, Reason

FLAG_MEANINGS: dict[Flag, str] = {
    Flag.EXT_MISMATCH: "The content is of another format than the file's name says; it was read as what it is.",
    Flag.TRUNCATED: "Less than 95 % of the sound that the header promises is in the file; was its copy cut short?",
    Flag.DECODE_GAPS: "Damaged packets, or much of the file, are not in the decoded audio; the clip may jump there.",
    Flag.UPSAMPLED: "The file's sample rate is below the recipe's, so its high mel bands hold next to nothing.",
    Flag.MULTICHANNEL: "More than two channels; the clip is their mean.",
    Flag.SILENT: "The whole clip is silent (peak below -80 dBFS). Its mel says nothing of a genre: listen to the file.",
    Flag.CLIPPED: "At least one sample in a thousand is at full scale: mastered loud, or distorted.",
    Flag.SHORT: "Shorter than the clip, however little, so padded with zeros; mel_frames says where the sound ends.",
    Flag.LONG: "Longer than the clip, however little, so cut; offset_s says where the clip begins.",
    Flag.TEXT_RECODED: "The lyrics file was not plain UTF-8 (another encoding, or a byte order mark).",
    Flag.LYRICS_FAILED: "The lyrics are unreadable or of an unknown encoding (--lyrics-encoding); they do not count.",
    Flag.NO_LYRICS: "The source names no lyrics, or the file that it names is not there.",
    Flag.EMPTY_LYRICS: "The lyrics hold nothing but white space.",
    Flag.INSTRUMENTAL: "The lyrics are the one word that says there are none.",
    Flag.LYRICS_TRUNCATED: "More tokens than the text encoder takes; the later ones were cut.",
    Flag.TEXT_CLEANED: "Markup, entities, time stamps, control or invisible characters were removed from the lyrics.",
    Flag.ENCODING_DOUBTFUL: "Two encodings fit the lyrics file; accents may be wrong. Extract with --lyrics-encoding.",
    Flag.NO_LABEL: "The source gives the track no genre: it can be predicted for, not learned from.",
}
"""One or two sentences per flag."""

_CAUSES: dict[Reason, str] = {
    Reason.SRC_MISSING: "No file at the path, or one that may not be read.",
    Reason.SRC_NOT_REGULAR: "A folder, pipe or device instead of a file.",
    Reason.PATH_ESCAPE: "The path leads out of the source's root folder.",
    Reason.EMPTY: "A file without sound: zero bytes, or a header with nothing behind it.",
    Reason.NOT_AUDIO: "The content is not sound, whatever the name says; often an error page saved as a song.",
    Reason.TOO_SHORT: "Less sound than the recipe's min_clip_s.",
    Reason.TOO_LARGE: "Beyond a limit on bytes, hours, channels or sample rate; the detail says which.",
    Reason.BAD_HEADER: "A header that no decoder accepts.",
    Reason.DECODE_ERROR: "Too damaged to decode.",
    Reason.UNSUPPORTED_CODEC: "No decoder for this codec or format (a video, for example), or encrypted sound.",
    Reason.DECODER_CRASH: "The decoder crashed on this file, more than once; other tracks are unharmed.",
    Reason.DECODER_TIMEOUT: "Decoding took too long.",
    Reason.DECODER_MEMORY: "Decoding needed more memory than one file may have.",
    Reason.NONFINITE: "Samples that are NaN, infinite, or absurdly large.",
    Reason.WORKER_CRASH: "It ended the worker process that had it, three times.",
    Reason.LYRICS_CHANGED: "For features that joined later: the lyrics are not those of the store.",
    Reason.SOURCE_CHANGED: "The audio file changed while it was read; for added features, it is not that of the store.",
    Reason.EXTRACTOR_FAILED: "The added extractor raised an error on this track; the detail says which.",
    Reason.DROPPED: "Taken down with mgc store drop.",
}

_REMEDIES: dict[Reason, str] = {
    Reason.SRC_MISSING: "Check --root, the paths in the source, and permissions; then extract with --retry-failed.",
    Reason.SRC_NOT_REGULAR: "Correct the path in the source.",
    Reason.PATH_ESCAPE: "Move the file below the root, or name a root that holds all files.",
    Reason.EMPTY: "Fetch the file again, then --retry-failed.",
    Reason.NOT_AUDIO: "Fetch the file again, then --retry-failed.",
    Reason.TOO_SHORT: "Leave it out, or fetch the whole file.",
    Reason.TOO_LARGE: "Cut the file, or leave it out.",
    Reason.BAD_HEADER: "Convert or fetch the file again, then --retry-failed.",
    Reason.DECODE_ERROR: "Fetch the file again, then --retry-failed.",
    Reason.UNSUPPORTED_CODEC: "Convert the file to FLAC or WAV, then --retry-failed.",
    Reason.DECODER_CRASH: "Convert the file with another program; log/ in the store has what the decoder said last.",
    Reason.DECODER_TIMEOUT: "Convert the file; on a slow disk just --retry-failed.",
    Reason.DECODER_MEMORY: "Convert or cut the file.",
    Reason.NONFINITE: "Write the file anew from its original.",
    Reason.WORKER_CRASH: "Convert the file with another program; log/ in the store has more.",
    Reason.LYRICS_CHANGED: "Restore the lyrics, then --add with --retry-failed; or make a store of what there is.",
    Reason.SOURCE_CHANGED: "Once nothing writes to it, --retry-failed; for added features, restore the file first.",
    Reason.EXTRACTOR_FAILED: "Report it to the extractor's author; once it is fixed, --add with --retry-failed.",
    Reason.DROPPED: "Nothing: it was taken down on request.",
}

REASON_MEANINGS: dict[Reason, tuple[str, str]] = {
    reason: (cause, _REMEDIES[reason]) for reason, cause in _CAUSES.items()
}
"""Cause and remedy of each reason code."""
