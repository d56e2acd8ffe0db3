"""Provide invented song lines in 32 languages, written for this project."""

from __future__ import annotations

import unicodedata

LINES: dict[str, list[str]] = {
    "English": [
        "I don’t know where the river goes",
        "she said “wait” and closed the café door",
        "tonight we’ll sing until the naïve moon is gone",
    ],
    "German": [
        "Über den Dächern fällt der Regen",
        "ich höre dich, doch du weißt es nicht",
        "süße Träume für die müde Straße",
        "und morgen früh sind wir schon weit",
    ],
    "French": [
        "Où es-tu passé, mon cœur léger",
        "la forêt brûle et l’été s’achève à peine",
        "j’ai gardé tes lettres près de la fenêtre",
        "ça ne fait rien, je t’attendrai là-bas",
    ],
    "Dutch": [
        "De zee is koud en België ver weg",
        "één keer nog dans ik met jou in de regen",
        "ik heb het licht voor jou laten branden",
    ],
    "Italian": [
        "Perché la notte è già finita",
        "la città dorme e tu non sei più qui",
        "così canterò finché verrà il mattino",
        "non c’è più virtù in questa povertà",
    ],
    "Spanish": [
        "Mañana volverá la canción del niño",
        "¿dónde está el corazón que perdí aquel día?",
        "la lluvia cayó sobre el pequeño jardín",
        "y tú, sola, bailarás después",
    ],
    "Portuguese": [
        "Não há manhã sem a tua canção",
        "o coração não esquece as lições da paixão",
        "vem cá, meu irmão, a solidão já se foi",
        "três luas e um só avião no céu",
    ],
    "Swedish": [
        "Över ängarna går den långa vägen hem",
        "jag hör din röst när åskan är nära",
        "så många år sedan vi sågs på ön",
    ],
    "Danish": [
        "Når solen går ned over søen",
        "jeg ønsker mig bare en stille aften på Ærø",
        "mørket er blødt og ånder så let",
    ],
    "Norwegian": [
        "Når kvelden kommer over fjorden",
        "hører jeg bølgene på stranden slå",
        "du er så nær og likevel så langt bort",
    ],
    "Finnish": [
        "Yö on hiljainen ja järvi nukkuu",
        "minä kävelen tämän pitkän tien yksin",
        "älä itke, päivä tulee vielä",
    ],
    "Polish": [
        "Chcę iść przez łąkę aż do świtu",
        "zażółć jesienią każdy mój dzień",
        "gdzie jesteś, miłości, gdy pada śnieg",
        "księżyc świeci nad cichą rzeką",
    ],
    "Czech": [
        "Příliš žluťoučký měsíc svítí nad řekou",
        "kde jsi, má lásko, když padá sníh",
        "už nechci čekat na tvůj dopis",
        "ještě jednou zpívej o našem městě",
    ],
    "Slovak": [
        "Keď svieti mesiac nad našou dedinou",
        "kde si, láska moja, čakám ťa každý deň",
        "dážď padá na tiché ulice a mňa už niet",
        "spievaj mi ešte o ďalekých horách",
    ],
    "Hungarian": [
        "Őszi szellő fújja el a könnyeim",
        "hol vagy most, kedvesem, miért tűntél el",
        "a csillagok fölött még égnek a fények",
        "énekelj nekem egy régi dalt újra",
    ],
    "Romanian": [
        "Noaptea aceasta îmi cântă despre tine",
        "când plouă în oraș mă gândesc la mare",
        "și luna râde peste câmpul înghețat",
        "spune-mi dacă mâine vei fi lângă mine",
    ],
    "Croatian": [
        "Večer pada na tihi grad i more",
        "gdje si sada, dušo, dok čekam na kiši",
        "još jednom pjevaj mi o našoj mladosti",
        "život je kratak, a noć je duga i nježna",
    ],
    "Turkish": [
        "Gece yağmur yağıyor, şehir uyuyor",
        "sensiz geçen günler çok uzun şimdi",
        "bir şarkı söyle bana, gözlerin ışıl ışıl",
        "dağların ardında güneş doğacak",
    ],
    "Lithuanian": [
        "Naktis ateina tyliai į mūsų miestą",
        "kur tu esi, mano širdie, kai lyja lietus",
        "ąžuolai šnara ir žvaigždės šviečia",
        "grįžk namo, kol dar neužgeso žiburys",
    ],
    "Estonian": [
        "Öö on vaikne ja järv magab",
        "ma kõnnin üksi mööda pikka teed",
        "ära nuta, päev tuleb jälle tagasi",
        "sõnad jäävad, kui süda on väsinud",
    ],
    "Vietnamese": [
        "Đêm nay trời mưa trên con phố nhỏ",
        "anh đi tìm em giữa thành phố buồn",
        "một ngày mới sẽ đến với chúng ta",
        "xin đừng quên bài hát của mùa thu",
    ],
    "Russian": [
        "Ночью по реке плывут огни",
        "я помню твой голос и тихий дождь",
        "вернись домой, пока не кончилась зима",
        "Мы будем петь до самого утра",
    ],
    "Ukrainian": [
        "Вночі над річкою горять вогні",
        "я чую твій голос і тихий дощ",
        "повернись додому, поки є ще час",
        "її пісня лунає над їхнім селом",
    ],
    "Bulgarian": [
        "Нощта е тиха над заспалия град",
        "къде си ти, когато вали дъждът",
        "ще пея за теб до самата зора",
        "върни се у дома, любов моя",
    ],
    "Serbian": [
        "Ноћас река тихо носи светла",
        "где си сада, душо, док пада киша",
        "певај ми још једном о нашој младости",
        "љубав је као ветар у пољу",
    ],
    "Greek": [
        "Απόψε το φεγγάρι φέγγει στη θάλασσα",
        "πού είσαι τώρα, αγάπη μου, που βρέχει",
        "θα τραγουδώ για σένα ώς το πρωί",
        "γύρισε πίσω, η νύχτα είναι μεγάλη",
    ],
    "Hebrew": [
        "הלילה יורד על העיר השקטה",
        "איפה את עכשיו כשהגשם יורד",
        "אני אשיר לך עד אור הבוקר",
        "שובי הביתה לפני שיבוא החורף",
    ],
    "Arabic": [
        "الليلة يضيء القمر فوق البحر",
        "أين أنت الآن يا حبيبي والمطر ينزل",
        "سأغني لك حتى الصباح",
        "عد إلى البيت قبل أن يأتي الشتاء",
    ],
    "Thai": ["คืนนี้ดวงจันทร์ส่องแสงเหนือแม่น้ำ", "เธออยู่ที่ไหนเมื่อฝนตกลงมา", "ฉันจะร้องเพลงให้เธอจนถึงเช้า", "กลับบ้านเถอะก่อนที่จะถึงฤดูหนาว"],
    "Japanese": [
        "夜の川に光が流れてゆく",
        "君の声を今でも覚えている",
        "雨の降る街で歌い続けよう",
        "もう一度だけ会いたいと願うよ",
        "さよならは言わないで",
    ],
    "Korean": [
        "밤의 강 위로 불빛이 흘러가네",
        "너의 목소리를 아직 기억해",
        "비가 내리는 거리에서 노래를 부르자",
        "다시 한번만 너를 보고 싶어",
    ],
    "Chinese": [
        "夜里的灯光在河上漂",
        "我还记得你说过的话",
        "下雨的街上我们一起唱歌",
        "等到春天来的时候再见面",
        "不要忘记我爱你",
    ],
    "Chinese (traditional)": [
        "夜裡的燈光在河上漂",
        "我還記得你說過的話",
        "下雨的街上我們一起唱歌",
        "等到春天來的時候再見面",
        "不要忘記我愛你",
    ],
}

_TAGS = """
en de fr nl it es pt sv da no fi pl cs sk hu ro hr tr lt et vi ru uk bg sr el he ar th ja ko zh zh
"""
TAGS = dict(zip(LINES, _TAGS.split(), strict=True))
"""Language -> BCP 47 tag."""

ENCODINGS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "English",
            "German",
            "French",
            "Dutch",
            "Italian",
            "Spanish",
            "Portuguese",
            "Swedish",
            "Danish",
            "Norwegian",
            "Finnish",
        ),
        ("cp1252", "latin_1", "iso8859_15", "mac_roman", "cp850"),
    ),
    **dict.fromkeys(("Polish", "Czech", "Slovak", "Hungarian", "Croatian"), ("cp1250", "iso8859_2", "cp852")),
    "Romanian": ("iso8859_16",),
    "Turkish": ("cp1254", "iso8859_9"),
    "Lithuanian": ("cp1257", "iso8859_13"),
    "Estonian": ("cp1257", "iso8859_15"),
    "Vietnamese": ("cp1258",),
    "Russian": ("cp1251", "koi8_r", "iso8859_5", "cp866", "mac_cyrillic"),
    "Ukrainian": ("cp1251", "koi8_u"),
    "Bulgarian": ("cp1251", "iso8859_5"),
    "Serbian": ("cp1251", "iso8859_5"),
    "Greek": ("cp1253", "iso8859_7"),
    "Hebrew": ("cp1255", "iso8859_8"),
    "Arabic": ("cp1256", "iso8859_6"),
    "Thai": ("cp874", "tis_620"),
    "Japanese": ("cp932", "shift_jis", "euc_jp", "iso2022_jp"),
    "Korean": ("cp949", "euc_kr", "iso2022_kr", "johab"),
    "Chinese": ("gb18030", "gbk", "gb2312", "hz"),
    "Chinese (traditional)": ("big5", "cp950", "big5hkscs", "gb18030"),
}
"""Language -> encodings in use for its texts."""


def encode(text: str, encoding: str) -> bytes:
    """Encode a text; for Windows-1258, Vietnamese tone marks become separate characters.

    Raises
    ------
    UnicodeEncodeError
        If the encoding lacks a character.
    """
    if encoding != "cp1258":
        return text.encode(encoding)
    parts = []
    for char in unicodedata.normalize("NFC", text):
        try:
            parts.append(char.encode(encoding))
        except UnicodeEncodeError:
            base, *marks = unicodedata.normalize("NFD", char)
            if not marks:
                raise
            marks.sort(key=lambda mark: mark in "\u0300\u0301\u0303\u0309\u0323")  # the tone last
            parts.append((unicodedata.normalize("NFC", base + "".join(marks[:-1])) + marks[-1]).encode(encoding))
    return b"".join(parts)
