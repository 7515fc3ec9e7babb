// A prompt becomes completions: one sequence each, that share the prompt's full blocks and copy the
// one that is still being filled. The shadow of the prompt, if there is one, is forked likewise.
#include <memory>
#include <utility>

#include "engine/core.h"

namespace llama_steer {
namespace {

/// A completion that knows what its prompt knows and holds no blocks yet.
std::unique_ptr<Sequence> Twin(const Sequence& prompt, int32_t completion) {
  auto twin = std::make_unique<Sequence>();
  twin->request = prompt.request;
  twin->completion = completion;
  twin->is_shadow = prompt.is_shadow;
  twin->texts = prompt.texts;
  twin->acts = prompt.acts;
  twin->proven = prompt.proven;
  twin->probed = prompt.probed;
  twin->seen = prompt.seen;
  if (prompt.shadow) twin->shadow = Twin(*prompt.shadow, completion);
  return twin;
}

}  // namespace

void EngineCore::CopyBlocks() {
  if (block_copies_.empty()) return;
  Status status = Settle();
  if (status.ok()) status = runner_.CopyKvBlocks(block_copies_);
  if (status.ok()) status = runner_.Sync();
  if (!status.ok()) device_fault_ = std::move(status);
  block_copies_.clear();
}

/// The prompt's sequence becomes one sequence for each live completion. Returns the first `draws`
/// of them; the others had no credit and draw their first token in a later step.
std::vector<Sequence*> EngineCore::Fork(Sequence& prompt, int32_t draws) {
  RequestState& request = *prompt.request;
  std::vector<Sequence*> drawn;
  for (size_t c = 0; c < request.completions.size(); ++c) {
    if (request.completions[c].finish != FinishReason::kNone) continue;
    const auto completion = static_cast<int32_t>(c);
    if (drawn.empty()) {
      prompt.completion = completion;
      drawn.push_back(&prompt);
      continue;
    }
    const bool draws_now = static_cast<int32_t>(drawn.size()) < draws;
    request.sequences.push_back(draws_now ? CopySequence(prompt, completion)
                                          : LateSequence(prompt, completion));
    if (draws_now) drawn.push_back(request.sequences.back().get());
  }
  return drawn;
}

/// Without room for the copies the sequence waits and is computed again.
std::unique_ptr<Sequence> EngineCore::CopySequence(const Sequence& prompt, int32_t completion) {
  std::unique_ptr<Sequence> copy = Twin(prompt, completion);
  const bool has_tail = prompt.computed % cache_.block_tokens() != 0;
  const int32_t copies = has_tail ? (prompt.shadow ? 2 : 1) : 0;
  if (cache_.blocks().available() < copies) return copy;
  ShareBlocks(prompt, prompt.computed, *copy);
  if (has_tail) CopyTail(prompt, *copy);
  if (!prompt.shadow) return copy;
  ShareBlocks(*prompt.shadow, prompt.shadow->computed, *copy->shadow);
  if (has_tail) CopyTail(*prompt.shadow, *copy->shadow);
  return copy;
}

/// Shares the full blocks before the last prompt token, whose row it has to compute itself.
std::unique_ptr<Sequence> EngineCore::LateSequence(const Sequence& prompt, int32_t completion) {
  std::unique_ptr<Sequence> late = Twin(prompt, completion);
  const int32_t tokens = prompt.request->prompt_tokens() - 1;
  ShareBlocks(prompt, tokens, *late);
  if (prompt.shadow) ShareBlocks(*prompt.shadow, tokens, *late->shadow);
  return late;
}

/// The full blocks of the first `tokens` positions.
void EngineCore::ShareBlocks(const Sequence& from, int32_t tokens, Sequence& to) {
  const int32_t full = tokens / cache_.block_tokens();
  for (int32_t i = 0; i < full; ++i) {
    const int32_t block = from.blocks[static_cast<size_t>(i)];
    cache_.Retain(block);
    to.blocks.push_back(block);
  }
  to.computed = full * cache_.block_tokens();
  to.resident = true;
}

/// The block that is still being filled. There is room for it.
void EngineCore::CopyTail(const Sequence& from, Sequence& to) {
  const int32_t tail = cache_.Allocate();
  block_copies_.push_back({.source = from.blocks[to.blocks.size()], .destination = tail});
  to.blocks.push_back(tail);
  to.open_proof = from.open_proof;
  to.computed = from.computed;
}

}  // namespace llama_steer
