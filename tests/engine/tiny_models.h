// The tiny random checkpoints of tests/data/models, made with transformers (tools/make_golden_models.py), and
// of tests/data/mixers (tools/mixer_reference.py), whose names begin with "mixers/".
#pragma once
#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "mneme/model.h"
#include "mneme/session.h"

namespace mneme {

inline std::string tiny_model_path(const std::string& name) {
  return std::string(MNEME_TEST_DATA) + (name.starts_with("mixers/") ? "/" : "/models/") + name;
}

inline std::shared_ptr<const Model> load_tiny(const std::string& name, LoadOptions options = {}) {
  if (options.threads == 0) options.threads = 2;
  return Model::load(tiny_model_path(name), options);
}

struct Golden {
  std::vector<TokenId> ids;
  std::vector<float> logits;  // [ids, vocab]
};

inline Golden load_golden(const std::string& name) {
  const std::string folder = tiny_model_path(name);
  const Json json = parse_json(read_text_file(folder + "/golden.json"), "golden.json");
  Golden golden;
  golden.ids = json.at("ids").get<std::vector<TokenId>>();
  const MappedFile file(folder + "/" + json.at("logits").get<std::string>(), LoadMode::read);
  const auto* values = reinterpret_cast<const float*>(file.bytes().data());
  golden.logits.assign(values, values + file.size() / sizeof(float));
  return golden;
}

/// Logits after each id of a golden text, read in chunks of `chunk`, keys and values in f32.
inline std::vector<float> all_logits(const std::shared_ptr<const Model>& model, const Golden& golden,
                                     uint32_t chunk) {
  SessionOptions options;
  options.kv = KvType::f32;
  options.chunk = chunk;
  Session session(model, options);
  AppendOptions all;
  all.all_logits = true;
  const auto logits = session.append(golden.ids, all);
  return {logits.begin(), logits.end()};
}

/// Logits after each of the ids, appended `piece` at a time.
inline std::vector<float> logits_in_pieces(const std::shared_ptr<const Model>& model,
                                           std::span<const TokenId> ids, size_t piece,
                                           KvType kv = KvType::f32) {
  SessionOptions options;
  options.kv = kv;
  Session session(model, options);
  AppendOptions all;
  all.all_logits = true;
  std::vector<float> out;
  for (size_t first = 0; first < ids.size(); first += piece) {
    const auto part = session.append(ids.subspan(first, std::min(piece, ids.size() - first)), all);
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

/// Root mean square of the difference over that of the expected values.
inline double relative_difference(const std::vector<float>& expected, const std::vector<float>& got) {
  double difference = 0, total = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(double{expected[i]} - got[i], 2);
    total += std::pow(double{expected[i]}, 2);
  }
  return std::sqrt(difference / total);
}

}  // namespace mneme
