#include "engine/steering_effects.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/core_harness.h"

namespace llama_steer {
namespace {

constexpr PositionRange kBlock = {16, 32};
constexpr int32_t kLastLayer = kTestLayers - 1;

SteeringEntry Entry(const SteeringParams& params) {
  Digest digest{};
  digest.fill(static_cast<uint8_t>(params.vector));
  SteeringEntry entry;
  entry.params = params;
  entry.inert = IsInert(params);
  entry.vector = std::make_shared<ResidentVector>(nullptr, digest);
  if (params.gate) {
    digest.fill(static_cast<uint8_t>(params.gate->vector));
    entry.gate_vector = std::make_shared<ResidentVector>(nullptr, digest);
  }
  return entry;
}

std::vector<PositionRange> ActsOf(const std::vector<SteeringEntry>& entries) {
  std::vector<PositionRange> acts;
  for (const SteeringEntry& entry : entries) acts.push_back(entry.acts({}));
  return acts;
}

std::optional<Digest> ProofKeyOf(const std::vector<SteeringEntry>& entries) {
  const std::vector<PositionRange> acts = ActsOf(entries);
  return ProofKey({.entries = entries, .acts = acts}, kBlock);
}

Digest Effects(const std::vector<SteeringEntry>& entries, PositionRange block = kBlock) {
  Sha256 hash;
  const std::vector<PositionRange> acts = ActsOf(entries);
  AddKvEffects(hash, {.entries = entries, .acts = acts}, block, kLastLayer);
  return hash.Finish();
}

const Digest kNone = Effects({});

TEST(SteeringEffects, WhatActsElsewhereLeavesABlockPlain) {
  EXPECT_EQ(Effects({Entry(TestSteering(1, {0}, 0, 16))}), kNone);
  EXPECT_EQ(Effects({Entry(TestSteering(1, {0}, 32))}), kNone);
  EXPECT_NE(Effects({Entry(TestSteering(1, {0}, 31))}), kNone);
}

TEST(SteeringEffects, SteeringAfterTheLastAttentionLeavesABlockPlain) {
  const SteeringEntry last = Entry(TestSteering(1, {kLastLayer}));
  EXPECT_EQ(Effects({last}), kNone);
  EXPECT_EQ(Effects({Entry(TestSteering(1, {0, kLastLayer}))}),
            Effects({Entry(TestSteering(1, {0}))}));
  EXPECT_TRUE(ProofKeyOf({last}).has_value());  // but it has to be proven
}

TEST(SteeringEffects, ACoefficientThatDoesNothingLeavesABlockPlain) {
  SteeringParams params = TestSteering(1, {0});
  for (const SteerKind kind : {SteerKind::kAdd, SteerKind::kProjectOut, SteerKind::kClamp}) {
    params.kind = kind;
    params.coefficient = 0.0f;
    EXPECT_EQ(Effects({Entry(params)}), kNone);
    params.coefficient = 1.0f;
    EXPECT_NE(Effects({Entry(params)}), kNone);
  }
  params.kind = SteerKind::kScaleComponent;
  EXPECT_EQ(Effects({Entry(params)}), kNone);
  params.coefficient = 0.0f;
  EXPECT_NE(Effects({Entry(params)}), kNone);
}

TEST(SteeringEffects, RangesThatCoverTheBlockAreTheSame) {
  EXPECT_EQ(Effects({Entry(TestSteering(1, {0}, 0, 40))}), Effects({Entry(TestSteering(1, {0}))}));
  EXPECT_NE(Effects({Entry(TestSteering(1, {0}, 0, 30))}), Effects({Entry(TestSteering(1, {0}))}));
}

TEST(SteeringEffects, EveryParameterThatActsCounts) {
  const SteeringParams base = TestSteering(1, {0});
  const Digest plain = Effects({Entry(base)});
  const auto changed = [&](auto change) {
    SteeringParams params = base;
    change(params);
    return Effects({Entry(params)});
  };
  EXPECT_NE(changed([](auto& p) { p.vector = 2; }), plain);
  EXPECT_NE(changed([](auto& p) { p.kind = SteerKind::kProjectOut; }), plain);
  EXPECT_NE(changed([](auto& p) { p.coefficient = std::nextafter(1.0f, 2.0f); }), plain);
  EXPECT_NE(changed([](auto& p) { p.preserve_norm = true; }), plain);
  EXPECT_NE(changed([](auto& p) { p.layers = {1}; }), plain);
  EXPECT_NE(changed([](auto& p) { p.position_begin = 17; }), plain);
  EXPECT_EQ(changed([](auto& p) { p.clamp_max = 3.0f; }), plain);  // ADD has no bounds
  const Digest clamp = changed([](auto& p) { p.kind = SteerKind::kClamp; });
  EXPECT_NE(clamp, changed([](auto& p) {
              p.kind = SteerKind::kClamp;
              p.clamp_max = 3.0f;
            }));
}

TEST(SteeringEffects, EveryParameterOfAGateOnEachTokenCounts) {
  SteeringParams base = TestSteering(1, {2});
  const Digest ungated = Effects({Entry(base)});
  base.gate = GateParams{.vector = 3, .layer = 1};
  const Digest plain = Effects({Entry(base)});
  EXPECT_NE(plain, ungated);
  const auto changed = [&](auto change) {
    SteeringParams params = base;
    change(*params.gate);
    return Effects({Entry(params)});
  };
  EXPECT_NE(changed([](auto& g) { g.vector = 4; }), plain);
  EXPECT_NE(changed([](auto& g) { g.layer = 2; }), plain);
  EXPECT_NE(changed([](auto& g) { g.metric = GateMetric::kCosine; }), plain);
  EXPECT_NE(changed([](auto& g) { g.comparator = GateComparator::kBelow; }), plain);
  EXPECT_NE(changed([](auto& g) { g.threshold = 0.5f; }), plain);
}

TEST(SteeringEffects, ADecidedGateOnThePromptIsNoGateOrNoSteering) {
  SteeringParams params = TestSteering(1, {0});
  const Digest ungated = Effects({Entry(params)});
  params.gate = GateParams{.vector = 3, .scope = GateScope::kPromptMean};
  SteeringEntry entry = Entry(params);
  for (const GateDecision held : {GateDecision::kUndecided, GateDecision::kNotFired}) {
    entry.decision = held;
    EXPECT_EQ(Effects({entry}), kNone);
    EXPECT_FALSE(ProofKeyOf({entry}).has_value());
  }
  entry.decision = GateDecision::kFired;
  EXPECT_EQ(Effects({entry}), ungated);
}

TEST(SteeringEffects, OrderCounts) {
  const SteeringEntry a = Entry(TestSteering(1, {0}));
  const SteeringEntry b = Entry(TestSteering(2, {0}));
  EXPECT_NE(Effects({a, b}), Effects({b, a}));
  EXPECT_NE(Effects({a}), Effects({a, a}));
}

TEST(SteeringEffects, TheProofKeyTellsLastLayersAndInertEntriesApart) {
  const auto key = [](const SteeringParams& params) { return ProofKeyOf({Entry(params)}); };
  SteeringParams inert = TestSteering(1, {0});
  inert.coefficient = 0.0f;
  EXPECT_TRUE(key(inert).has_value());
  EXPECT_NE(key(TestSteering(1, {0})), key(TestSteering(1, {0, kLastLayer})));
  EXPECT_FALSE(key(TestSteering(1, {0}, 32)).has_value());
}

}  // namespace
}  // namespace llama_steer
