// Upcycling: the feed-forward of a dense model becomes a mixture whose experts all begin as copies of it,
// with a new router (SpikingBrain report, section 5; Komatsuzaki et al. 2023, arXiv 2212.05055). At the start
// the mixture computes what the dense layer did: its output is the shared experts' and the routed ones'
// together, (S + w) times the copy's, where w is the sum of the weights that a token's routes have at first
// (k/N for softmax scores that are not renormalised). That is undone by a factor of 1 / (S + w), as
//
//   spread  a = (1 / (S + w))^(1/3) on each of gate, up and down, as published: 0.98 for S = 1, k = 1,
//           N = 16. SiLU is not homogeneous, so this is near, not exact
//   down    all of it on down, which is linear: exact up to the router's deviation from even scores
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/json_fields.h"
#include "model/checkpoint.h"

namespace mneme {

enum class UpcycleScale { spread, down };

struct UpcycleOptions {
  std::vector<uint32_t> layers;  // empty: all that are dense
  uint32_t experts = 16, shared = 1, top_k = 1;
  RouterScore router = RouterScore::softmax;
  bool renormalise = false;
  UpcycleScale scale = UpcycleScale::spread;
  double router_deviation = 0.002;  // of the router's values, normal; small: scores begin nearly even
  uint64_t seed = 1;
};

/// What `mneme convert` reads: the one stage of an upcycling recipe, and the text that it is measured on.
struct UpcycleRecipe {
  UpcycleOptions options;
  std::string type = "bf16";         // of the folder that is written: f32, f16, bf16
  std::vector<fs::path> validation;  // text files
  uint32_t context = 2048;           // as `mneme perplexity --ctx`
  uint64_t tokens = 32768;           // of the text
};
/// The recipe in a file, or nullopt unless its only stage is an upcycling: with others it is mneme-train's
/// (or there is no such JSON). Throws Error(invalid_argument) for unknown or contradictory fields.
std::optional<UpcycleRecipe> read_upcycle_recipe(const fs::path& file);

/// The fields of a stage of kind "upcycle" but the kind itself. Throws Error(invalid_argument).
UpcycleOptions read_upcycle_stage(JsonFields& stage);

/// Where a tensor of the mixture comes from: a tensor of the dense layer times a factor, `copies` of it below
/// each other or, with `columns`, beside each other. An empty name: a router, whose values are drawn.
struct UpcycleOrigin {
  std::string name;
  float factor = 1;
  uint32_t copies = 1;
  bool columns = false;
};
UpcycleOrigin upcycle_origin(const std::string& name, const UpcycleOptions& options);

/// The config after upcycling. Throws Error(invalid_argument) for layers that are not there or not dense, or
/// numbers that make no mixture.
ModelConfig upcycled_config(const ModelConfig& config, const UpcycleOptions& options);

/// 1 / (S + w), see above.
double upcycle_factor(const UpcycleOptions& options);

/// The checkpoint with its feed-forwards upcycled; tensors are made when they are read. Throws as
/// upcycled_config().
Checkpoint upcycle(Checkpoint in, const UpcycleOptions& options);

}  // namespace mneme
