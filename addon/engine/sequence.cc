#include "engine/sequence.h"

#include <algorithm>

namespace llama_steer {

size_t SeenTokens::Count(uint32_t token) {
  const auto [position, inserted] = index_.try_emplace(token, list_.size());
  if (inserted) list_.push_back({.token_id = token, .generated_count = 0});
  return position->second;
}

int32_t Sequence::context() const {
  return request->prompt_tokens() + static_cast<int32_t>(generated.size());
}

uint32_t Sequence::token(int32_t position) const {
  const int32_t prompt = request->prompt_tokens();
  return position < prompt ? request->spec.prompt_token_ids[static_cast<size_t>(position)]
                           : generated[static_cast<size_t>(position - prompt)];
}

int32_t RequestState::live_completions() const {
  return static_cast<int32_t>(std::ranges::count_if(
      completions, [](const CompletionState& c) { return c.finish == FinishReason::kNone; }));
}

std::vector<uint32_t> BlockKeys::Tokens(const Sequence& sequence, int32_t block) const {
  const PositionRange positions = Positions(block);
  std::vector<uint32_t> tokens;
  tokens.reserve(static_cast<size_t>(block_tokens_));
  for (int32_t p = positions.begin; p < positions.end; ++p) tokens.push_back(sequence.token(p));
  return tokens;
}

const Digest& BlockKeys::Key(Sequence& sequence, int32_t block) const {
  const int32_t prompt_blocks = sequence.request->prompt_tokens() / block_tokens_;
  std::vector<Digest>& prompt_keys = sequence.request->prompt_keys;
  const Digest* parent = prompt_keys.empty() ? nullptr : &prompt_keys.back();
  for (auto next = static_cast<int32_t>(prompt_keys.size());
       next <= std::min(block, prompt_blocks - 1); ++next) {
    prompt_keys.push_back(Next(sequence, next, parent));
    parent = &prompt_keys.back();
  }
  if (block < prompt_blocks) return prompt_keys[static_cast<size_t>(block)];

  std::vector<Digest>& own_keys = sequence.own_keys;
  if (!own_keys.empty()) parent = &own_keys.back();
  for (auto next = prompt_blocks + static_cast<int32_t>(own_keys.size()); next <= block; ++next) {
    own_keys.push_back(Next(sequence, next, parent));
    parent = &own_keys.back();
  }
  return own_keys[static_cast<size_t>(block - prompt_blocks)];
}

Digest BlockKeys::Next(const Sequence& sequence, int32_t block, const Digest* parent) const {
  Sha256 hash;
  // The first block of a chain starts from the adapter and the tenant's salt instead of a parent.
  hash.Add(parent != nullptr);
  if (parent != nullptr) {
    hash.Add(*parent);
  } else {
    const auto& adapter = sequence.request->adapter;
    hash.Add(adapter != nullptr);
    if (adapter != nullptr) hash.Add(adapter->digest());
    hash.Add(std::string_view(sequence.request->spec.cache_salt));
  }
  for (const uint32_t token : Tokens(sequence, block)) hash.Add(token);
  AddKvEffects(hash, sequence.request->steering, Positions(block), last_layer_);
  return hash.Finish();
}

}  // namespace llama_steer
