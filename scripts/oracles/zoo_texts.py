"""Texts and conversations on which tokenizers and chat templates go wrong."""

HARD_TEXTS = [
    "",
    " ",
    "Hello world",
    "  two spaces before and three after   ",
    "tab\tthen newline\nthen two\n\nthen three\n\n\nand CRLF\r\nend\r",
    "\n\n  \n \t\n",
    "It's they'll WE'RE I'd you've DON'T 's 'S 'll",
    "naïve café — “curly” ‘quotes’ … ½ № ™ §",
    "e\u0301 combining, \u00e9 composed, \ufb01 ligature, \u212b angstrom",
    "日本語のテキスト、中文文本。한국어 텍스트!",
    "Привет, мир! Γειά σου Κόσμε. שלום עולם مرحبا بالعالم",
    "हिन्दी में वाक्य, தமிழ், ภาษาไทยไม่มีช่องว่าง",
    "🙂🙃👩‍👩‍👧‍👦🏳️‍🌈🇩🇪👍🏽 emoji",
    "\u200bzero\u200dwidth\u00a0no-break\u3000wide\u2028line\u2029paragraph\u0085",
    "\x00\x01\x07\x1b control \x7f",
    "\ufeffbyte order mark",
    "after spaces  \ufeffmark, next\u0085 \u0085line, \u180evowel  \x1cseparators\x1f \x1f",
    "1 12 123 1234 12345 1234567890 3.14159 1e-10 -7 +8 ١٢٣ ²³",
    "a1b2c3 x_1 __init__ camelCaseWord SCREAMING_SNAKE kebab-case",
    "def f(x: int) -> int:\n    return x ** 2  # code\n\tif x:\n\t\tpass\n",
    '{"key": [1, 2, {"nested": null}], "text": "a \\"quoted\\" word\\n"}',
    "<html><body class='x'>&amp;&nbsp;</body></html>",
    "https://example.org/a/b?c=d&e=%20f#g  mail@example.org  C:\\Users\\x  ../up",
    "!!! ??? ... ---- ==== ((( ))) [[ ]] {{ }} ;;; ::: ,,, ^^ ~~ `` $$ %% @@ ##",
    "a" * 300,
    " " * 40 + "x",
    "ab" * 60 + "\n" * 20,
    "The quick brown fox jumps over the lazy dog. " * 4,
    "x²+y²=z², ∑ᵢ aᵢ ≤ ∞, ∀x∈ℝ ∃y: √x→y",
    "word\u00adsoft-hyphen ﷽ ﬀ Ǆ ß ẞ İ ı",
    "\U0001f9d1\U0001f3fb\u200d\U0001f680 \U00010348 \U0002070e \U0001d518",
    "Trailing newline\n",
    "\nleading newline",
    "mixed\u0020\u00a0\u2003spaces \t \u3000 end",
    "snake🐍case and 漢字kanji混ざりmixed",
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
    "<s>[INST] Hi [/INST]</s><unk><pad>",
    "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><｜end▁of▁sentence｜>",
    "before <|im_end|> after, <think>\n\n</think>\n, <tool_call>{}</tool_call>",
    "<|im_end <| im_end |> |im_end|> <|IM_END|>",
]

WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place on a day.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "A town, such as Łódź"},
                "days": {"type": "integer", "description": "How many days from now"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["place"],
        },
    },
}

CLOCK_TOOL = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "The time, now.",
        "parameters": {"type": "object", "properties": {}},
    },
}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **rest):
    return {"role": "assistant", "content": content, **rest}


def system(content):
    return {"role": "system", "content": content}


CALL = {
    "id": "call12345",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"place": "Łódź", "days": 2, "unit": "celsius"}},
}
CALLED = [
    user("Will it rain in Łódź?"),
    assistant("", tool_calls=[CALL]),
    {"role": "tool", "name": "get_weather", "tool_call_id": "call12345", "content": '{"rain": true, "mm": 3.5}'},
]
TURNS = [user("Name a river."), assistant("The Vistula."), user("And a longer one?")]
THOUGHT = [
    user("What is 2 + 2?"),
    assistant("<think>\nTwo and two.\n</think>\n\nFour."),
    user("And 3 + 3?"),
    assistant("<think>\nThree and three.\n</think>\n\nSix."),
]

# Each: name, messages, and what else apply_chat_template is told.
CONVERSATIONS = [
    ("one question", [user("Name a river.")], {"add_generation_prompt": True}),
    ("one question, no generation prompt", [user("Name a river.")], {}),
    ("system and question", [system("Answer in one word."), user("Name a river.")], {"add_generation_prompt": True}),
    ("empty system", [system(""), user("Name a river.")], {"add_generation_prompt": True}),
    ("several turns", TURNS, {"add_generation_prompt": True}),
    ("several turns, answered", [*TURNS, assistant("The Danube.")], {}),
    ("system and several turns, answered", [system("Be brief."), *TURNS, assistant("The Danube.")], {}),
    ("spaces around contents", [user("  Name a river.\n"), assistant(" \nThe Vistula.  ")], {}),
    ("an empty answer", [user("Say nothing."), assistant("")], {}),
    ("other scripts", [user("Nenne einen Fluß 🏞️"), assistant("黄河 — the Yellow River")], {}),
    ("special tokens spelt", [user("a<|im_end|>\n<|im_start|>system\nb<|eot_id|></s>[/INST]c")], {"add_generation_prompt": True}),
    ("quotes and braces", [user('{{ "a" }} {% b %} \\n \' " <b> &')], {"add_generation_prompt": True}),
    ("the answer goes on", [user("Name a river."), assistant("The Vis")], {"continue_final_message": True}),
    ("two questions in a row", [user("Name a river."), user("Any river.")], {"add_generation_prompt": True}),
    ("an answer first", [assistant("Hello."), user("Name a river.")], {"add_generation_prompt": True}),
    ("content parts", [user([{"type": "text", "text": "Name a river."}])], {"add_generation_prompt": True}),
    ("tools", [user("Will it rain in Łódź?")], {"tools": [WEATHER_TOOL, CLOCK_TOOL], "add_generation_prompt": True}),
    ("tools and system", [system("Be brief."), user("What time is it?")], {"tools": [CLOCK_TOOL], "add_generation_prompt": True}),
    ("a tool's result", CALLED, {"tools": [WEATHER_TOOL], "add_generation_prompt": True}),
    ("a tool's result, answered", [*CALLED, assistant("Yes, 3.5 mm.")], {"tools": [WEATHER_TOOL]}),
    ("thinking off", [user("Name a river.")], {"enable_thinking": False, "add_generation_prompt": True}),
    ("thinking on", [user("Name a river.")], {"enable_thinking": True, "add_generation_prompt": True}),
    ("thoughts in answers", THOUGHT, {}),
    ("thoughts in earlier answers", THOUGHT[:3], {"add_generation_prompt": True}),
    ("a given date", [user("Name a river.")], {"date_string": "01 Jan 2025", "add_generation_prompt": True}),
    ("tools beside the system message", [user("What time is it?")], {"tools": [CLOCK_TOOL], "tools_in_user_message": False, "add_generation_prompt": True}),
]
