// How far one distribution over the vocabulary is from another.
#pragma once

#include <span>

namespace llama_steer::cpu {

/// KL(softmax(p) || softmax(q)) in nats, exponentials and sums in float64, in one fixed order.
/// -Inf is a logit of probability 0; where only q has one the result is +Inf. NaN when p or q holds
/// NaN or +Inf, or nothing but -Inf.
double KlDivergence(std::span<const float> p, std::span<const float> q);

}  // namespace llama_steer::cpu
