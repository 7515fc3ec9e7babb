/**
 * A byte-level BPE tokenizer in the layout of Llama 3: 256 bytes, merges learnt from a few lines of
 * English, filler pieces so that every id is text, and the special tokens at the end.
 */

const SPECIAL_TOKENS = [
  "<|begin_of_text|>",
  "<|end_of_text|>",
  "<|start_header_id|>",
  "<|end_header_id|>",
  "<|eot_id|>",
];

const CORPUS = `the service answers every request that it takes and it says when it can not
a vector is added to the residual stream of the model and the text that comes out is steered by it
there are many words in the world and some of them stand here so that the tokenizer can learn from them
what would you like to know about the weather today, and what have you read that you would read again
this is a test of the model with random weights, so nothing that it writes means anything at all
one two three four five six seven eight nine ten, the first and the last, before and after, up and down`;

const MAX_LEARNT_MERGES = 400;

const SPLIT_PATTERN =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const CHAT_TEMPLATE =
  "{{ bos_token }}{% for message in messages %}" +
  "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] + '<|eot_id|>' }}" +
  "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

/** The printable character that stands for each byte in byte-level BPE (GPT-2's table). */
function byteCharacters() {
  const printable = (byte) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(printable(byte) ? byte : next++),
  );
}

const pairKey = (left, right) => `${left} ${right}`;

/** The merges of plain BPE training, most frequent pair first, ties by first occurrence. */
function learnMerges(characters, limit) {
  const space = characters[0x20];
  const words = CORPUS.split(/\s+/).map((word) => [space, ...word]);
  const merges = [];
  while (merges.length < limit) {
    const counts = new Map();
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) {
        const key = pairKey(word[i], word[i + 1]);
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
    }
    let best = null;
    for (const [key, count] of counts) {
      if (count > 1 && (best === null || count > counts.get(best))) best = key;
    }
    if (best === null) break;
    const [left, right] = best.split(" ");
    merges.push([left, right]);
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) {
        if (word[i] === left && word[i + 1] === right) word.splice(i, 2, left + right);
      }
    }
  }
  return merges;
}

/**
 * `vocabSize` must hold the bytes and the special tokens.
 * Returns { files: { name: object }, bos, eos: number[], pieces: string[], merges: [string, string][] }.
 */
export function makeTokenizer(vocabSize, contextTokens) {
  const characters = byteCharacters();
  const firstSpecial = vocabSize - SPECIAL_TOKENS.length;
  if (firstSpecial < characters.length) {
    throw new RangeError(`vocab_size ${vocabSize} does not hold 256 bytes and special tokens`);
  }
  const merges = learnMerges(characters, Math.min(MAX_LEARNT_MERGES, firstSpecial - 256));
  const pieces = [...characters, ...merges.map(([left, right]) => left + right)];
  const known = new Set(pieces);
  for (let i = 0; pieces.length < firstSpecial; i++) {
    const piece = `${characters[0x20]}w${i.toString(36)}`;
    if (!known.has(piece)) pieces.push(piece);
  }
  const special = SPECIAL_TOKENS.map((content, i) => ({ id: firstSpecial + i, content }));
  const idOf = (content) => special.find((token) => token.content === content).id;
  const bos = idOf("<|begin_of_text|>");
  return {
    files: {
      "tokenizer.json": tokenizerJson(pieces, merges, special, bos),
      "tokenizer_config.json": tokenizerConfig(special, contextTokens),
    },
    bos,
    eos: [idOf("<|end_of_text|>"), idOf("<|eot_id|>")],
    pieces: [...pieces, ...SPECIAL_TOKENS],
    merges,
    firstSpecial,
  };
}

const addedToken = ({ content }) => ({
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});

function tokenizerJson(pieces, merges, special, bos) {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };
  const begin = { SpecialToken: { id: "<|begin_of_text|>", type_id: 0 } };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special.map((token) => ({ id: token.id, ...addedToken(token) })),
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: SPLIT_PATTERN }, behavior: "Isolated", invert: false },
        { ...byteLevel, use_regex: false },
      ],
    },
    post_processor: {
      type: "TemplateProcessing",
      single: [begin, { Sequence: { id: "A", type_id: 0 } }],
      pair: [begin, { Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
      special_tokens: {
        "<|begin_of_text|>": {
          id: "<|begin_of_text|>",
          ids: [bos],
          tokens: ["<|begin_of_text|>"],
        },
      },
    },
    decoder: { ...byteLevel, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: true,
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      merges,
    },
  };
}

function tokenizerConfig(special, contextTokens) {
  return {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: "<|begin_of_text|>",
    eos_token: "<|eot_id|>",
    clean_up_tokenization_spaces: false,
    model_max_length: contextTokens,
    added_tokens_decoder: Object.fromEntries(
      special.map((token) => [String(token.id), addedToken(token)]),
    ),
    chat_template: CHAT_TEMPLATE,
  };
}
