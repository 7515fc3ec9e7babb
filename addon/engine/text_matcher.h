// Finds a text in a stream of tokens, byte by byte (Knuth, Morris and Pratt): a match may begin and
// end inside tokens, and in the prompt as well as in the completion. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace llama_steer {

/// UTF-8 bytes of every token; a view of EngineOptions::token_bytes and token_offsets.
class TokenTexts {
 public:
  TokenTexts() = default;
  TokenTexts(std::span<const uint8_t> bytes, std::span<const uint32_t> offsets)
      : bytes_(bytes), offsets_(offsets) {}

  bool empty() const { return offsets_.empty(); }
  std::span<const uint8_t> Of(uint32_t token) const {
    return bytes_.subspan(offsets_[token], offsets_[token + 1] - offsets_[token]);
  }

 private:
  std::span<const uint8_t> bytes_;
  std::span<const uint32_t> offsets_;
};

class TextPattern {
 public:
  /// `text` holds at least one byte.
  explicit TextPattern(std::vector<uint8_t> text);

  /// Reads on. `matched`: bytes of the text that have been matched, 0 at first. True when a match
  /// is complete; what is left of `bytes` is then not read.
  bool Advance(uint32_t& matched, std::span<const uint8_t> bytes) const;

 private:
  std::vector<uint8_t> text_;
  std::vector<uint32_t> fallback_;  // [text] longest proper prefix that ends text_[0..i]
};

/// How far the search for one text is in a sequence.
struct TextProgress {
  uint32_t matched = 0;
  int32_t completed_at = -1;  // position of the token that completes it; -1: not seen yet

  bool found() const { return completed_at >= 0; }
  /// Reads the token at `position`; true when it completes the first match.
  bool Read(const TextPattern& pattern, std::span<const uint8_t> token, int32_t position);
};

}  // namespace llama_steer
