// The words of src/native/binding.ts for the enumerations of the engine.
#pragma once

#include <string_view>
#include <utility>

#include "engine/event.h"

namespace llama_steer {

inline constexpr std::pair<std::string_view, DType> kDTypeWords[] = {
    {"f32", DType::kF32}, {"f16", DType::kF16}, {"bf16", DType::kBF16}};

inline constexpr std::pair<std::string_view, WeightFormat> kWeightFormatWords[] = {
    {"auto", WeightFormat::kAsStored},
    {"bf16", WeightFormat::kBF16},
    {"int8", WeightFormat::kInt8},
    {"fp8", WeightFormat::kFp8}};

inline constexpr std::pair<std::string_view, DType> kKvDTypeWords[] = {{"bf16", DType::kBF16},
                                                                       {"f32", DType::kF32}};

inline constexpr std::pair<std::string_view, SteerKind> kSteerKindWords[] = {
    {"add", SteerKind::kAdd},
    {"project_out", SteerKind::kProjectOut},
    {"clamp", SteerKind::kClamp},
    {"scale_component", SteerKind::kScaleComponent}};

inline constexpr std::pair<std::string_view, LoraModule> kLoraModuleWords[] = {
    {"q", LoraModule::kQ},      {"k", LoraModule::kK},       {"v", LoraModule::kV},
    {"o", LoraModule::kO},      {"gate", LoraModule::kGate}, {"up", LoraModule::kUp},
    {"down", LoraModule::kDown}};

inline constexpr std::pair<std::string_view, CaptureSiteKind> kCaptureSiteWords[] = {
    {"resid_pre", CaptureSiteKind::kResidPre},
    {"attn_out", CaptureSiteKind::kAttnOut},
    {"mlp_out", CaptureSiteKind::kMlpOut},
    {"resid_post", CaptureSiteKind::kResidPost},
    {"final_norm", CaptureSiteKind::kFinalNorm}};

inline constexpr std::pair<std::string_view, GateMetric> kGateMetricWords[] = {
    {"dot", GateMetric::kDot}, {"cosine", GateMetric::kCosine}};

inline constexpr std::pair<std::string_view, GateComparator> kGateComparatorWords[] = {
    {"above", GateComparator::kAbove}, {"below", GateComparator::kBelow}};

inline constexpr std::pair<std::string_view, GateScope> kGateScopeWords[] = {
    {"each_token", GateScope::kEachToken},
    {"prompt_last_token", GateScope::kPromptLastToken},
    {"prompt_mean", GateScope::kPromptMean}};

inline constexpr std::pair<std::string_view, ProbeRead> kProbeReadWords[] = {
    {"each_token", ProbeRead::kEachToken},
    {"prompt_last", ProbeRead::kPromptLast},
    {"after_text", ProbeRead::kAfterText}};

inline constexpr std::pair<std::string_view, FinishReason> kFinishReasonWords[] = {
    {"none", FinishReason::kNone},
    {"stop", FinishReason::kStop},
    {"length", FinishReason::kLength},
    {"cancelled", FinishReason::kCancelled}};

}  // namespace llama_steer
