#include "engine/text_matcher.h"

#include <utility>

namespace llama_steer {

TextPattern::TextPattern(std::vector<uint8_t> text)
    : text_(std::move(text)), fallback_(text_.size(), 0) {
  uint32_t prefix = 0;
  for (size_t i = 1; i < text_.size(); ++i) {
    while (prefix > 0 && text_[i] != text_[prefix]) prefix = fallback_[prefix - 1];
    if (text_[i] == text_[prefix]) ++prefix;
    fallback_[i] = prefix;
  }
}

bool TextPattern::Advance(uint32_t& matched, std::span<const uint8_t> bytes) const {
  for (const uint8_t byte : bytes) {
    while (matched > 0 && byte != text_[matched]) matched = fallback_[matched - 1];
    if (byte == text_[matched]) ++matched;
    if (matched == text_.size()) return true;
  }
  return false;
}

bool TextProgress::Read(const TextPattern& pattern, std::span<const uint8_t> token,
                        int32_t position) {
  if (found() || !pattern.Advance(matched, token)) return false;
  completed_at = position;
  return true;
}

}  // namespace llama_steer
