// Adapters in the forward pass and merged into the weights, against float64; and what is refused.
#include "model/lora.h"

#include <functional>

#include "model/lora_merge.h"
#include "model/reference.h"
#include "model/runner.h"
#include "model/tiny_lora.h"

namespace llama_steer {
namespace {

using test::Prompt;
using test::Reference;
using test::Row;
using test::Runner;
using test::TinyCheckpoint;
using test::TinyConfig;
using test::TinyLora;

/// Logits of the whole prompt in float64, under an adapter.
std::vector<Row> Exactly(const LlamaConfig& config, const TinyCheckpoint& checkpoint,
                         const TinyLora& lora, const std::vector<int32_t>& tokens) {
  Reference reference(config, checkpoint);
  reference.adapter = [&](const std::string& name, const std::vector<Row>& x, std::vector<Row>& y) {
    const auto found = lora.factors().find(name);
    if (found == lora.factors().end()) return;
    const auto& [a, b] = found->second;
    for (size_t t = 0; t < x.size(); ++t) {
      const size_t inputs = x[t].size();
      const size_t rank = a.size() / inputs;
      Row reduced(rank, 0.0);
      for (size_t k = 0; k < rank; ++k) {
        for (size_t i = 0; i < inputs; ++i) {
          reduced[k] += static_cast<double>(a[k * inputs + i]) * x[t][i];
        }
      }
      for (size_t n = 0; n < y[t].size(); ++n) {
        double sum = 0.0;
        for (size_t k = 0; k < rank; ++k) {
          sum += static_cast<double>(b[n * rank + k]) * reduced[k];
        }
        y[t][n] += static_cast<double>(lora.scale()) * sum;
      }
    }
  };
  return reference.Logits(tokens);
}

MappedLora Mapped(const LlamaConfig& config, TinyLora& lora) {
  StatusOr<MappedLora> mapped = MapLora(config, lora.files());
  EXPECT_TRUE(mapped.ok()) << mapped.status().message();
  return mapped.ok() ? std::move(mapped).value() : MappedLora{};
}

int32_t Put(Runner& runner, const LlamaConfig& config, TinyLora& lora) {
  StatusOr<int32_t> index = runner.model().PutAdapter(Mapped(config, lora));
  EXPECT_TRUE(index.ok()) << index.status().message();
  return index.ok() ? *index : -1;
}

void ExpectClose(const std::vector<std::vector<float>>& logits, size_t first,
                 const std::vector<Row>& exact, double tolerance) {
  for (size_t i = 0; i < exact.size(); ++i) {
    EXPECT_LT(test::RelativeError(logits[first + i], exact[i]), tolerance) << "row " << i;
  }
}

TEST(Lora, RowsOfTwoAdaptersAndOfNoneAgreeWithFloat64InOneStep) {
  LlamaConfig config = TinyConfig();
  config.attention_bias = true;
  TinyCheckpoint checkpoint(config, DType::kF32);
  TinyLora all(config, {.rank = 5, .scale = 0.7f, .modules = test::EveryModule(), .seed = 1});
  TinyLora some(config, {.rank = 3,
                         .scale = -1.5f,
                         .dtype = DType::kBF16,
                         .modules = {LoraModule::kK, LoraModule::kUp, LoraModule::kDown},
                         .seed = 2});
  Runner runner(config, checkpoint);
  const int32_t first = Put(runner, config, all);
  const int32_t second = Put(runner, config, some);
  const auto tokens = Prompt(20, 1, config.vocab_size);
  const auto half = std::vector(tokens.begin(), tokens.begin() + 12);
  const AdapterRows rows[] = {{second, 12, 20}};
  const auto logits = runner.Step({{0, 0, half}, {1, 0, tokens}}, nullptr, rows);
  ExpectClose(logits, 0, test::ReferenceLogits(config, checkpoint, half), 2e-5);
  ExpectClose(logits, 12, Exactly(config, checkpoint, some, tokens), 2e-5);
  const AdapterRows both[] = {{first, 0, 12}, {second, 12, 20}};
  const auto mixed = runner.Step({{0, 0, half}, {1, 0, tokens}}, nullptr, both);
  ExpectClose(mixed, 0, Exactly(config, checkpoint, all, half), 2e-5);
  for (size_t row = 12; row < 32; ++row) EXPECT_EQ(mixed[row], logits[row]) << "row " << row;
}

TEST(Lora, ADroppedAdaptersNumberIsUsedAgain) {
  const LlamaConfig config = TinyConfig();
  TinyCheckpoint checkpoint(config, DType::kF32);
  TinyLora lora(config, {.modules = test::EveryModule(), .seed = 1});
  TinyLora other(config, {.modules = test::EveryModule(), .seed = 2});
  Runner runner(config, checkpoint);
  const int32_t first = Put(runner, config, lora);
  EXPECT_EQ(Put(runner, config, other), 1);
  runner.model().DropAdapter(first);
  EXPECT_EQ(Put(runner, config, other), first);
  const auto tokens = Prompt(6, 1, config.vocab_size);
  const AdapterRows rows[] = {{first, 0, 6}};
  ExpectClose(runner.Step({{0, 0, tokens}}, nullptr, rows), 0,
              Exactly(config, checkpoint, other, tokens), 2e-5);
}

TEST(Lora, MergedWeightsAgreeWithTheAdapterBesideThem) {
  const LlamaConfig config = TinyConfig();
  const auto tokens = Prompt(16, 1, config.vocab_size);
  TinyLora lora(config, {.rank = 4, .scale = 0.8f, .modules = test::EveryModule()});
  const MappedLora mapped = Mapped(config, lora);
  const struct {
    DType stored;
    WeightFormat format;
    double tolerance;  // of the rounding of merged weights
  } cases[] = {{DType::kF32, WeightFormat::kAsStored, 2e-5},
               {DType::kF16, WeightFormat::kAsStored, 5e-3},
               {DType::kBF16, WeightFormat::kAsStored, 3e-2},
               {DType::kF32, WeightFormat::kBF16, 3e-2},
               {DType::kF32, WeightFormat::kInt8, 8e-2}};
  for (const auto& each : cases) {
    TinyCheckpoint checkpoint(config, each.stored);
    Runner runner(config, checkpoint, DType::kF32, 2, each.format, &mapped);
    ExpectClose(runner.Step({{0, 0, tokens}}), 0, Exactly(config, checkpoint, lora, tokens),
                each.tolerance);
  }
}

TEST(Lora, AMergeIsRoundedOnceToTheTypeAtRunTime) {
  const LlamaConfig config = TinyConfig();
  TinyLora lora(config, {.rank = 3, .scale = 0.3f, .modules = {LoraModule::kQ}});
  const MappedLora mapped = Mapped(config, lora);
  ThreadPool pool(2);
  for (const DType stored : {DType::kF32, DType::kF16, DType::kBF16}) {
    TinyCheckpoint checkpoint(config, stored);
    const std::string name = "model.layers.0.self_attn.q_proj";
    const std::vector<float>& weight = checkpoint.Values(name + ".weight");
    StatusOr<MappedFile> file = MappedFile::Open(checkpoint.path().string());
    ASSERT_TRUE(file.ok());
    const TensorLocation& at = checkpoint.Tensor(name + ".weight");
    const TensorView view{"w", file->bytes().data() + at.offset_bytes, stored, at.shape[0],
                          at.shape[1]};
    const StatusOr<std::unique_ptr<uint8_t[]>> merged =
        MergeLora(view, mapped.factors[0], DType::kBF16, pool);
    ASSERT_TRUE(merged.ok());
    const auto& [a, b] = lora.factors().at(name);
    const auto cols = static_cast<size_t>(view.cols);
    for (size_t i = 0; i < weight.size(); ++i) {
      float sum = 0.0f;
      for (size_t k = 0; k < 3; ++k) sum += b[i / cols * 3 + k] * a[k * cols + i % cols];
      const uint16_t wanted = Bf16FromFloat(weight[i] + sum * 0.3f);
      uint16_t got = 0;
      std::memcpy(&got, merged.value().get() + 2 * i, 2);
      ASSERT_EQ(got, wanted) << "element " << i;
    }
  }
}

TEST(Lora, AMergeChangesWhatTheAdapterNamesAndNothingElse) {
  const LlamaConfig config = TinyConfig();
  TinyCheckpoint checkpoint(config);
  TinyLora lora(config, {.modules = {LoraModule::kO}});
  const MappedLora mapped = Mapped(config, lora);
  const auto backend = std::move(CreateCpuBackend({1, "auto"})).value();
  const auto load = [&](const MappedLora* merged) {
    return LoadLlamaWeights(*backend, config, checkpoint.files(), WeightFormat::kAsStored, nullptr,
                            merged);
  };
  const StatusOr<LlamaWeights> plain = load(nullptr);
  const StatusOr<LlamaWeights> merged = load(&mapped);
  ASSERT_TRUE(plain.ok() && merged.ok());
  EXPECT_EQ(merged.value().merged.size(), static_cast<size_t>(config.layers));
  EXPECT_EQ(merged.value().bytes, plain.value().bytes);
  EXPECT_EQ(merged.value().dtype_name, "bf16");
}

struct Broken {
  const char* name;
  std::function<void(LoraFiles&)> change;
  const char* message;
};
void PrintTo(const Broken& broken, std::ostream* out) { *out << broken.name; }

class BrokenLora : public testing::TestWithParam<Broken> {};

TEST_P(BrokenLora, IsRefusedByName) {
  const LlamaConfig config = TinyConfig();
  TinyLora lora(config, {.modules = {LoraModule::kQ, LoraModule::kDown}});
  GetParam().change(lora.files());
  const StatusOr<MappedLora> mapped = MapLora(config, lora.files());
  EXPECT_EQ(mapped.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(mapped.status().message().find(GetParam().message), std::string::npos)
      << mapped.status().message();
}

INSTANTIATE_TEST_SUITE_P(
    Files, BrokenLora,
    testing::Values(
        Broken{"NoTarget", [](LoraFiles& files) { files.targets.clear(); },
               "changes no projection"},
        Broken{"LayerOutside", [](LoraFiles& files) { files.targets[0].layer = 3; }, "layer 3"},
        Broken{"NegativeLayer", [](LoraFiles& files) { files.targets[0].layer = -1; }, "layer -1"},
        Broken{"NoRank", [](LoraFiles& files) { files.targets[0].rank = 0; }, "q_proj.lora_A"},
        Broken{"InfiniteScale", [](LoraFiles& files) { files.targets[0].scale = INFINITY; },
               "its scale finite"},
        Broken{"Twice", [](LoraFiles& files) { files.targets.push_back(files.targets[0]); },
               "changes a projection twice"},
        Broken{"OtherRank", [](LoraFiles& files) { files.targets[0].rank = 5; },
               "q_proj.lora_A.weight has shape [4, 48], the model and the rank ask for [5, 48]"},
        Broken{"OtherModule", [](LoraFiles& files) { files.targets[0].module = LoraModule::kK; },
               "q_proj.lora_B.weight has shape"},
        Broken{"FlatFactor", [](LoraFiles& files) { files.targets[0].a.shape = {192}; },
               "has shape [192]"},
        Broken{"PastTheEnd", [](LoraFiles& files) { files.targets[0].b.offset_bytes = 1 << 20; },
               "lora_B.weight ends at byte"},
        Broken{"Overflow",
               [](LoraFiles& files) { files.targets[0].b.offset_bytes = UINT64_MAX - 3; },
               "lora_B.weight ends at byte"},
        Broken{"OtherSize", [](LoraFiles& files) { files.targets[0].a.size_bytes -= 4; },
               "has 764 bytes, not 768"},
        Broken{"OtherType", [](LoraFiles& files) { files.targets[0].a.dtype = DType::kBF16; },
               "has 768 bytes, not 384"},
        Broken{"Misaligned", [](LoraFiles& files) { files.targets[0].a.offset_bytes += 2; },
               "is not aligned"},
        Broken{"NoSuchFile", [](LoraFiles& files) { files.targets[0].a.file = 1; },
               "names a file that is not there"},
        Broken{"NotFinite",
               [](LoraFiles& files) {
                 std::fstream file(files.paths[0], std::ios::binary | std::ios::in | std::ios::out);
                 const uint32_t bits = 0x7fc00000u;
                 file.seekp(static_cast<std::streamoff>(files.targets[3].b.offset_bytes) + 8);
                 file.write(reinterpret_cast<const char*>(&bits), 4);
               },
               "layers.1.mlp.down_proj.lora_B.weight holds values that are not finite"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(BrokenLora, AMissingFileIsToldByItsName) {
  LoraFiles files;
  files.paths = {"/nowhere/adapter_model.safetensors"};
  const StatusOr<MappedLora> mapped = MapLora(TinyConfig(), files);
  EXPECT_NE(mapped.status().message().find("/nowhere/"), std::string::npos);
}

}  // namespace
}  // namespace llama_steer
