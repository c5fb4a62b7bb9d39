"""Preference rows: a conversation, a better and a worse answer. Short, and of many kinds."""


def turn(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def row(prompt, chosen: str, rejected: str) -> dict:
    turns = [turn("user", prompt)] if isinstance(prompt, str) else prompt
    return {"prompt": turns, "chosen": [turn("assistant", chosen)], "rejected": [turn("assistant", rejected)]}


PREFERENCES = [
    row(
        "Why does bread rise?",
        "Yeast eats sugar in the dough and breathes out gas. The dough is stretchy and holds the bubbles, so it grows.",
        "Bread rises because bread is made to rise in the oven, which is hot, and hot things are higher.",
    ),
    row("What is 17 + 26?", "17 + 26 = 43.", "17 + 26 is about forty, or 44, depending on how you count."),
    row(
        "Write a haiku about a harbour at night.",
        "Ropes creak in the dark;\na lamp swings over the tide,\ngulls asleep on posts.",
        "The harbour is at night and it is dark there and the boats are there.",
    ),
    row("Name the largest ocean.", "The Pacific.", "It's the Atlantic Ocean, between Europe and America."),
    row(
        "Turn this into a polite request: Send me the file.",
        "Could you please send me the file when you have a moment? Thank you!",
        "Send me the file, please, now.",
    ),
    row(
        "Write a Python function that returns the squares of a list.",
        "def squares(numbers):\n    return [n * n for n in numbers]",
        "def squares(numbers):\n    for n in numbers:\n        return n ^ 2",
    ),
    row(
        "Translate into German: The shop opens at nine.",
        "Das Geschäft öffnet um neun Uhr.",
        "Der Shop ist offen, neun.",
    ),
    row(
        [turn("system", "You answer in one short sentence."), turn("user", "What do beavers build?")],
        "Beavers build dams and lodges from wood and mud.",
        "Beavers are rodents. They live in rivers. They have big teeth. They build many things, for example dams.",
    ),
    row("Is a tomato a fruit?", "Botanically yes: it grows from a flower and holds seeds. In the kitchen it counts as a vegetable.", "No."),
    row(
        "List three uses of a paper clip.",
        "1. Holding sheets together\n2. Resetting a small device\n3. Marking a page",
        "Paper clips, paper clips, paper clips.",
    ),
    row("Spell 'rhythm' backwards.", "m-h-t-y-h-r", "r-y-t-h-m"),
    row(
        "My plant's leaves turn yellow. What should I check first?",
        "The soil. If it stays wet, water less and see that the pot drains; wet roots are the usual cause.",
        "Yellow is a warm colour. You might paint the pot to match it.",
    ),
    row(
        [
            turn("user", "Pick a number below ten."),
            turn("assistant", "Seven."),
            turn("user", "Double it and add one."),
        ],
        "Fifteen.",
        "I have picked seven, and one more is eight.",
    ),
    row("How far is the Moon?", "About 384,000 km on average.", "The Moon is very, very far away; nobody has ever measured it."),
    row(
        "Summarise: The meeting began late because the projector failed, and so two items were left for next week.",
        "A broken projector delayed the meeting, so two items were postponed.",
        "There was a meeting. It had a projector.",
    ),
    row("日本の首都はどこですか。", "東京です。", "京都でした、多分。"),
    row(
        "What does HTTP status 404 mean?",
        "The server has no page at that address: \"Not Found\".",
        "It means that 404 servers are down.",
    ),
    row("Give a synonym for 'brave'.", "Courageous", "Cowardly, but not at all"),
    row(
        "Explain to a child why the sky is blue.",
        "Sunlight is a mix of all colours. Tiny bits of air bounce the blue part around the most, so blue comes to your eyes from everywhere.",
        "Rayleigh scattering: intensity goes with the inverse fourth power of the wavelength.",
    ),
    row("Which is heavier: a kilogram of feathers or a kilogram of iron?", "Neither; both weigh one kilogram.", "Iron!"),
    row(
        [turn("system", "Reply as JSON."), turn("user", "Colour and shape of a stop sign?")],
        '{"colour": "red", "shape": "octagon"}',
        "A stop sign is red and has eight sides :)",
    ),
    row(
        "Finish the sentence: When the rain stopped, ...",
        "When the rain stopped, the whole street smelled of warm stone and lilac.",
        "When the rain stopped, when the rain stopped, when the rain",
    ),
    row("Emoji for a party, please 🎉", "🎈🥳🎂", "party"),
    row(
        "How do I boil an egg?",
        "Lower it into boiling water. Six minutes give a soft yolk, ten a firm one; then cool it in cold water.",
        "Put the egg into the microwave with its shell for ten minutes at full power.",
    ),
]


def plain(text_row: dict) -> dict:
    """The row as strings: the prompt's turns joined, the completions as they are."""
    return {
        "prompt": "\n".join(message["content"] for message in text_row["prompt"]),
        "chosen": text_row["chosen"][0]["content"],
        "rejected": text_row["rejected"][0]["content"],
    }
