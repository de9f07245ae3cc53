"""Decode the beginning of a text file whose encoding is not told.

The order of evidence: a byte order mark; the NUL bytes of UTF-16; validity as UTF-8, which no other
text of some length has by chance; last, the letters that each older encoding would give. The last
is a guess, and is marked as one.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

# UTF-32 before UTF-16, whose mark is the beginning of the other's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Escape sequences that nothing else has: of ISO 2022, for Japanese and Korean.
_ESCAPES = {
    b"\x1b$B": "iso2022_jp",
    b"\x1b$@": "iso2022_jp",
    b"\x1b$)C": "iso2022_kr",
}
_SIGNS = "“”„’‘–—…€£§°©®«»·¿¡"  # noqa: RUF001  (they are meant)
_APOSTROPHE = "\u2019"
# Encodings with one byte for each character, with the characters beyond ASCII that are frequent in
# the languages they are used for. At equal scores the first one is taken.
_LATIN = {
    "cp1252": "äöüßéèêëàâçñáíóúãõôîïåøæœÄÖÜÉÀÇÑÅØÆ" + _SIGNS,
    "cp1250": "áčďéěíňóřšťúůýžąćęłńśźżőűäöüßČŘŠŽÁÉÍÓÚÝĄĆĘŁŃŚŹŻŐŰ" + _SIGNS,
    "cp1254": "ğışçöüâîĞİŞÇÖÜ" + _SIGNS,
    "cp850": "äöüßéèêëàâçñáíóúãõôîïåøæÄÖÜÉÀÇÑÅØÆ",
    "mac-roman": "äöüßéèêëàâçñáíóúãõôîïåøæœÄÖÜÉÀÇÑÅØÆ",
}
# The ten letters that make up about two thirds of a text.
_OTHER_ALPHABETS = {
    "cp1251": "оеаинтсрвл",
    "koi8-r": "оеаинтсрвл",
    "cp1253": "αοιετσνηυρ",
    "cp1255": "יוהלארתבשמ",
    "cp1256": "اليمونرتبع",
}
DIVISIBLE_ENCODINGS = frozenset({"utf-8", *_LATIN, *_OTHER_ALPHABETS})
"""Those in which the byte of an ASCII character is never a part of another character."""
# Encodings of East Asia, with the bytes that begin their frequent characters, and the lowest byte
# that ends one.
_DOUBLE_BYTE = {
    "cp932": ((0x82, 0x83), (0x88, 0x98), 0x40),  # kana; kanji of level 1
    "euc-jp": ((0xA4, 0xA5), (0xB0, 0xCF), 0xA1),
    "gb18030": ((0xB0, 0xD7), (0xB0, 0xD7), 0xA1),  # hanzi of level 1
    "big5": ((0xA4, 0xC6), (0xA4, 0xC6), 0x40),
    "cp949": ((0xB0, 0xC8), (0xB0, 0xC8), 0xA1),  # hangul
}
# The bytes of frequent hangul are those of hanzi as well; which of these are there decides.
_HANGUL = "이다는에의가을고하지한사기로도인서리자대시수정과일부름호번주소전화제목금액날짜"
_HANZI = "的一是不了人在有中大上国个名号编姓日期金额价格数量城市地址电话公司产品单位年月类型时间"
_MIN_SHARE = 0.85  # of frequent characters, for a double-byte encoding to be considered
_SAMPLE = 16 * 1024  # bytes that a guess looks at


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text, and how its encoding was found."""

    text: str
    encoding: str
    guessed: bool
    """True if the encoding follows from nothing but the letters that it gives."""
    damaged: int = 0
    """Places that are not of the encoding, shown as U+FFFD."""


def decode(data: bytes, *, complete: bool) -> Decoded:
    """Decode the first bytes of a file; a character that their end cuts is left out."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            text = _decode_beginning(data, encoding, complete=complete, errors="replace")
            return Decoded(text, encoding.removesuffix("-sig"), False, text.count("\ufffd"))
    for escape, encoding in _ESCAPES.items():
        if escape in data:
            text = _decode_beginning(data, encoding, complete=complete, errors="replace")
            return Decoded(text, encoding, False, text.count("\ufffd"))
    if utf16 := _utf16_without_mark(data):
        text = _decode_beginning(data, utf16, complete=complete, errors="replace")
        return Decoded(text, utf16, True, text.count("\ufffd"))
    try:
        return Decoded(_decode_beginning(data, "utf-8", complete=complete), "utf-8", False)
    except UnicodeDecodeError:
        pass
    text = _decode_beginning(data, "utf-8", complete=complete, errors="replace")
    damaged = text.count("\ufffd")
    if sum(character > "\x7f" for character in text) >= 5 * damaged:  # UTF-8 with a few bad bytes
        return Decoded(text, "utf-8", False, damaged)
    encoding = _guess(data[:_SAMPLE])
    text = _decode_beginning(data, encoding, complete=complete, errors="replace")
    return Decoded(text, encoding, True, text.count("\ufffd"))


def _decode_beginning(data: bytes, encoding: str, *, complete: bool, errors: str = "strict") -> str:
    return codecs.getincrementaldecoder(encoding)(errors).decode(data, final=complete)


def _utf16_without_mark(data: bytes) -> str | None:
    """Return the UTF-16 of a text whose Latin characters have a NUL byte on the same side."""
    sample = data[: _SAMPLE & ~1]
    units = len(sample) // 2
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if units < 2 or abs(even - odd) < 0.2 * units or min(even, odd) > 0.01 * units:
        return None
    if max(even, odd) < 0.9 * units and sample.replace(b"\0", b"").isascii():
        return None  # plain text with some NUL bytes in it
    encoding = "utf-16-le" if odd > even else "utf-16-be"
    try:
        text = _decode_beginning(sample, encoding, complete=False)
    except UnicodeDecodeError:
        return None
    controls = sum(character < " " and character not in "\t\n\f\r" for character in text)
    return encoding if controls <= 0.01 * len(text) else None


def _guess(sample: bytes) -> str:
    shares = {encoding: _frequent_share(sample, encoding) for encoding in _DOUBLE_BYTE}
    best = max(shares, key=shares.__getitem__)
    if shares[best] >= _MIN_SHARE:
        if shares["gb18030"] >= _MIN_SHARE and shares["cp949"] >= _MIN_SHARE:
            hangul = sum(map(sample.decode("cp949", "replace").count, _HANGUL))
            hanzi = sum(map(sample.decode("gb18030", "replace").count, _HANZI))
            return "cp949" if hangul > hanzi else "gb18030"
        return best
    scores = {
        encoding: _score(sample, encoding, frequent, latin=alphabets is _LATIN)
        for alphabets in (_LATIN, _OTHER_ALPHABETS)
        for encoding, frequent in alphabets.items()
    }
    return max(scores, key=scores.__getitem__)


def _frequent_share(sample: bytes, encoding: str) -> float:
    """Return the share of double-byte characters that are frequent ones; 0 if some are invalid.

    Characters of East Asia come in words of several; in Latin text, bytes over 0x7F stand alone
    between letters, and would each make a pair with one of these.
    """
    first, second, lowest = _DOUBLE_BYTE[encoding]
    try:
        text = _decode_beginning(sample, encoding, complete=False)
    except UnicodeDecodeError:
        return 0.0
    words = re.findall(r"[^\x00-\x7f]+", text)
    if sum(map(len, words)) < 1.3 * len(words):
        return 0.0
    pairs = [character.encode(encoding) for character in "".join(words)]
    # Rows of punctuation stand at the beginning: 0x81 in Shift JIS, 0xA1 to 0xA3 in the others.
    signs = (0x81,) if encoding == "cp932" else (0xA1, 0xA2, 0xA3)
    letters = [pair for pair in pairs if len(pair) == 2 and pair[0] not in signs]
    frequent = [
        pair
        for pair in letters
        if pair[1] >= lowest
        and (first[0] <= pair[0] <= first[1] or second[0] <= pair[0] <= second[1])
    ]
    if encoding == "euc-jp" and not any(pair[0] in first for pair in letters):
        return 0.0  # without kana nothing tells it from gb18030
    return len(frequent) / len(letters) if letters else 0.0


def _score(sample: bytes, encoding: str, frequent: str, *, latin: bool) -> float:
    """Return how well the characters beyond ASCII fit an alphabet and the places they are at."""
    text = sample.decode(encoding, "replace")
    score = 0.0
    for match in re.finditer(r"[^\x00-\x7f]", text):
        character, start, end = match[0], match.start(), match.end()
        before, after = text[start - 1 : start], text[end : end + 1]
        if character == "\ufffd":
            score -= 2
        elif not character.isalpha():
            in_word = after.isalpha() and (before.isalpha() or character in "£¤¥")
            score += -1 if in_word and character != _APOSTROPHE else character in frequent
        elif before.isdigit() or (character.isupper() and before.islower()):
            score -= 0.5
        elif latin:
            # Accented letters rarely follow one another.
            follows_another = not before.isascii() and before.isalpha()
            score += -0.5 if follows_another else character in frequent
        else:
            # Letters of another alphabet do not stand in a word with Latin ones.
            mixed = (before.isascii() and before.isalpha()) or (after.isascii() and after.isalpha())
            score += -1 if mixed else 1 if character.lower() in frequent else 0.3
    return score
