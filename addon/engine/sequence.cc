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

ActingSteerings Sequence::steerings() const { return {.entries = request->steering, .acts = acts}; }

int32_t RequestState::live_completions() const {
  return static_cast<int32_t>(std::ranges::count_if(
      completions, [](const CompletionState& c) { return c.finish == FinishReason::kNone; }));
}

void ReadLastToken(Sequence& sequence, const TokenTexts& token_texts) {
  RequestState& request = *sequence.request;
  if (request.texts.empty()) return;
  const int32_t position = sequence.context() - 1;
  const std::span<const uint8_t> bytes = token_texts.Of(sequence.token(position));
  bool found = false;
  for (size_t i = 0; i < request.texts.size(); ++i) {
    found |= sequence.texts[i].Read(request.texts[i], bytes, position);
  }
  if (found) ResolvePositions(sequence);
}

void ReadPrompt(Sequence& sequence, const TokenTexts& token_texts) {
  const RequestState& request = *sequence.request;
  sequence.texts.resize(request.texts.size());
  for (size_t i = 0; i < request.texts.size(); ++i) {
    for (int32_t p = 0; p < request.prompt_tokens() && !sequence.texts[i].found(); ++p) {
      sequence.texts[i].Read(request.texts[i], token_texts.Of(sequence.token(p)), p);
    }
  }
  ResolvePositions(sequence);
}

void ResolvePositions(Sequence& sequence) {
  RequestState& request = *sequence.request;
  sequence.acts.resize(request.steering.size());
  for (size_t i = 0; i < request.steering.size(); ++i) {
    const SteeringEntry& entry = request.steering[i];
    sequence.acts[i] = entry.acts(sequence.texts);
    const PositionRange meant = entry.meant(sequence.texts);
    const int32_t first = meant.empty() ? -1 : meant.begin;
    for (size_t c = 0; c < request.completions.size(); ++c) {
      const bool is_this = sequence.completion == static_cast<int32_t>(c);
      if (is_this || sequence.completion == kPromptOnly) {
        request.completions[c].first_positions[i] = first;
      }
    }
  }
  if (request.capture && request.capture_text != kNoText) {
    const TextProgress& progress = sequence.texts[static_cast<size_t>(request.capture_text)];
    if (progress.found()) request.capture->BeginAfter(progress.completed_at);
  }
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
  std::vector<Digest>& prompt_keys =
      sequence.is_shadow ? sequence.request->shadow_prompt_keys : sequence.request->prompt_keys;
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
  AddKvEffects(hash, sequence.steerings(), Positions(block), last_layer_);
  return hash.Finish();
}

}  // namespace llama_steer
