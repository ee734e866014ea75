// Losses and gradients of checkpoints that others wrote, beside those that PyTorch computed in float64,
// partly through transformers (tools/train_reference.py), and logits beside the engine's own references.
#include <gtest/gtest.h>

#include <cmath>

#include "core/json.h"
#include "engine/memory_models.h"
#include "model/tensor_names.h"
#include "train/blocks/block_cases.h"
#include "train/blocks/decoder.h"
#include "train/blocks/model_files.h"

namespace mneme::train::reference_test {
namespace {

const Json& references() {
  static const Json json =
      parse_json(read_text_file(fs::path(MNEME_TEST_DATA) / "train" / "gradients.json"), "gradients.json");
  return json.at("checkpoints");
}

/// Norm, and products with the fixed vectors cos(0.37 (k + 1) i + k).
std::vector<double> summary(const Tensor& gradient, size_t numbers) {
  const Tensor flat = gradient.to(at::kDouble).flatten();
  std::vector<double> out{flat.norm().item<double>()};
  const Tensor i = at::arange(flat.numel(), at::kDouble);
  for (size_t k = 0; out.size() < numbers; ++k) {
    const auto step = static_cast<double>(k);
    out.push_back((flat * at::cos(0.37 * (step + 1) * i + step)).sum().item<double>());
  }
  return out;
}

void expect_gradient(const Json& want, const Tensor& got, const std::string& name) {
  ASSERT_TRUE(got.defined()) << name;
  const auto numbers = want.get<std::vector<double>>();
  const std::vector<double> mine = summary(got, numbers.size());
  for (size_t k = 0; k < numbers.size(); ++k)
    EXPECT_NEAR(mine[k], numbers[k], 2e-4 * numbers[0] + 1e-7) << name << ", number " << k;
}

Tensor floats(const fs::path& path) {
  const MappedFile file(path, LoadMode::read);
  return at::tensor(
      at::ArrayRef<float>(reinterpret_cast<const float*>(file.bytes().data()), file.size() / 4));
}

struct Batch {
  Tensor tokens, targets;
};

/// The sequence of a golden file; the last token has no next one.
Batch batch_of(const std::vector<int64_t>& ids) {
  const Tensor tokens = at::tensor(ids, at::kLong).unsqueeze(0);
  Tensor targets = at::full_like(tokens, -1);
  targets.narrow(1, 0, tokens.size(1) - 1).copy_(tokens.narrow(1, 1, tokens.size(1) - 1));
  return {tokens, targets};
}

class Reference : public testing::TestWithParam<std::string> {};

TEST_P(Reference, LossGradientsAndLogitsAreEqual) {
  const Json& want = references().at(GetParam());
  const fs::path folder = fs::path(MNEME_TEST_DATA) / GetParam();
  const TrainedModel model = load_model(folder);
  const Json golden = parse_json(read_text_file(folder / "golden.json"), "golden.json");
  const Batch batch = batch_of(golden.at("ids").get<std::vector<int64_t>>());
  const Decoder decoder(model.config, model.parameters);

  const Tensor loss = decoder.loss(batch.tokens, batch.targets);
  EXPECT_NEAR(loss.item<double>(), want.at("loss").get<double>(), 1e-5 * want.at("loss").get<double>());
  loss.backward();
  size_t compared = 0;
  for (const std::string& name : model.parameters.names()) {
    const std::string other = hf_tensor_name(model.config, name);
    if (!want.at("gradients").contains(other)) continue;
    expect_gradient(want.at("gradients").at(other), model.parameters.at(name).grad(), name);
    ++compared;
  }
  EXPECT_EQ(compared, want.at("gradients").size());

  const at::NoGradGuard no_grad;
  const Tensor logits = decoder.logits(batch.tokens)[0];
  const Tensor reference = floats(folder / golden.at("logits").get<std::string>()).view(logits.sizes());
  EXPECT_LE((logits - reference).abs().max().item<double>(),
            1e-4 * reference.square().mean().sqrt().item<double>());
}

std::vector<std::string> folders() {
  std::vector<std::string> out;
  for (const auto& [name, entry] : references().items())
    if (name != "engram") out.push_back(name);
  return out;
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Reference, testing::ValuesIn(folders()), [](const auto& at_case) {
  std::string name = at_case.param;
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
});

TEST(EngramReference, LossGradientsAndLogitsAreEqual) {
  const MemoryGolden golden = load_memory_golden();
  TrainedModel model = load_model(tiny_model_path("llama"));
  model.config.tables["memory"] = golden.table;
  for (const EngramModuleConfig& module : golden.modules)
    model.config.layers[module.layer_id].memory = module;
  const auto tensor = [&](const std::string& name) {
    const auto& shape = golden.shapes.at(name);
    return at::tensor(at::ArrayRef<float>(golden.values.at(name)))
        .view(std::vector<int64_t>(shape.begin(), shape.end()));
  };
  for (const auto& [name, values] : golden.values)
    if (name.starts_with("blk.")) model.parameters.add(name, tensor(name));
  RowTables tables;
  tables.emplace("memory", RowTable(tensor("rows")));
  const auto map = std::make_shared<const TokenMap>(TokenMap::build(load_tiny("llama")->tokenizer()));
  const Batch batch = batch_of({golden.ids.begin(), golden.ids.end()});
  const BatchRows rows = touch_rows(model.config, make_table_ids(model.config, map), tables, batch.tokens);

  const Json& want = references().at("engram");
  const Decoder decoder(model.config, model.parameters);
  const Tensor loss = decoder.loss(batch.tokens, batch.targets, rows);
  EXPECT_NEAR(loss.item<double>(), want.at("loss").get<double>(), 1e-5 * want.at("loss").get<double>());
  loss.backward();
  for (const std::string& name : model.parameters.names()) {
    const std::string other =
        name.find("engram") == std::string::npos ? hf_tensor_name(model.config, name) : name;
    expect_gradient(want.at("gradients").at(other), model.parameters.at(name).grad(), name);
  }
  // The gradient of the whole table: two layers' rows, and zero wherever nobody looked.
  Tensor dense = at::zeros_like(tables.at("memory").values());
  for (const auto& [layer, touched] : rows.at("memory"))
    dense.index_add_(0, touched.ids, touched.rows.grad());
  expect_gradient(want.at("gradients").at("rows"), dense, "rows");

  const at::NoGradGuard no_grad;
  const Tensor logits = decoder.logits(batch.tokens, rows)[0], reference = tensor("logits");
  EXPECT_LE((logits - reference).abs().max().item<double>(),
            1e-4 * reference.square().mean().sqrt().item<double>());
}

}  // namespace
}  // namespace mneme::train::reference_test
