// Mneme's side of bench/train_speed.py: trains one model on one batch again and again. Reads commands from
// standard input, one a line, and answers each with one line of JSON:
//
//   steps N     N steps of forward, backward, clipping and AdamW -> seconds, and the losses
//   gemm        2048^3 products of the libtorch that is linked: GFLOP/s in bf16 and f32, and of oneDNN in f32
//   save DIR    the parameters (names.json, raw f32) and the batch (raw int64), for another program to start
//   from
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <vector>

#include "train/blocks/decoder.h"
#include "train/ops/products.h"
#include "train/optimise/optimiser.h"

namespace {

using namespace mneme;
using namespace mneme::train;
using Json = nlohmann::json;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class F>
double best_of(int times, const F& f) {
  double best = 1e30;
  for (int i = 0; i <= times; ++i) {  // the first is not counted
    const double start = seconds();
    f();
    if (i > 0) best = std::min(best, seconds() - start);
  }
  return best;
}

Json gemm() {
  const at::NoGradGuard no_grad;
  const int64_t n = 2048;
  const double flops = 2.0 * n * n * n / 1e9;
  const Tensor a = at::randn({n, n}), b = at::randn({n, n}), c = at::empty({n, n});
  const Tensor x = a.to(at::kBFloat16), y = b.to(at::kBFloat16);
  return {{"bf16_libtorch", flops / best_of(3, [&] { at::mm(x, y); })},
          {"f32_libtorch", flops / best_of(1, [&] { at::mm(a, b); })},
          {"f32_onednn", flops / best_of(3, [&] { multiply_into(a, b, c); })}};
}

struct Run {
  ModelConfig config;
  Parameters parameters;
  Tensor tokens, targets;
  PassOptions options;
  Optimiser optimiser;

  double step() {
    for (const std::string& name : parameters.names()) parameters.at(name).mutable_grad() = Tensor();
    const Tensor loss = Decoder(config, parameters).loss(tokens, targets, {}, options);
    torch::autograd::backward({loss});
    std::vector<Tensor> gradients;
    for (const std::string& name : parameters.names()) gradients.push_back(parameters.at(name).grad());
    optimiser.step(1e-3, std::min(1.0, 1.0 / gradient_norm(gradients)));
    return loss.item<double>();
  }

  void save(const std::filesystem::path& folder) const {
    std::filesystem::create_directories(folder);
    Json names = Json::array();
    for (size_t i = 0; i < parameters.names().size(); ++i) {
      const Tensor& value = parameters.at(parameters.names()[i]);
      names.push_back({{"name", parameters.names()[i]}, {"shape", value.sizes().vec()}});
      std::ofstream(folder / (std::to_string(i) + ".f32"), std::ios::binary)
          .write(static_cast<const char*>(value.data_ptr()), static_cast<std::streamsize>(value.nbytes()));
    }
    std::ofstream(folder / "names.json") << names;
    std::ofstream(folder / "tokens.i64", std::ios::binary)
        .write(static_cast<const char*>(tokens.data_ptr()), static_cast<std::streamsize>(tokens.nbytes()));
  }
};

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app{"Trains a model for bench/train_speed.py"};
  std::string config_text;
  int64_t batch = 8, length = 512;
  int threads = 2;
  bool bfloat16 = false;
  app.add_option("--config", config_text, "ModelConfig as JSON")->required();
  app.add_option("--batch", batch, "sequences");
  app.add_option("--length", length, "tokens of a sequence");
  app.add_option("--threads", threads, "threads");
  app.add_flag("--bf16", bfloat16, "matrix products in bf16");
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(threads);
  const ModelConfig config = ModelConfig::from_json(config_text);
  const Parameters parameters = Parameters::create(config, 1);
  at::manual_seed(1);
  const Tensor tokens = at::randint(0, config.vocab, {batch, length}, at::kLong);
  PassOptions options;
  options.bfloat16 = bfloat16;
  Run run{
      config, parameters, tokens, at::roll(tokens, -1, 1), options, Optimiser({}, parameters, config.tied)};
  std::string command;
  while (std::cin >> command) {
    Json answer;
    if (command == "steps") {
      int64_t count = 0;
      std::cin >> count;
      const double start = seconds();
      for (int64_t i = 0; i < count; ++i) answer["losses"].push_back(run.step());
      answer["seconds"] = seconds() - start;
    } else if (command == "gemm") {
      answer = gemm();
    } else if (command == "save") {
      std::string folder;
      std::cin >> folder;
      run.save(folder);
      answer["parameters"] = parameters.count();
    } else {
      answer["error"] = "unknown command " + command;
    }
    std::cout << answer << std::endl;
  }
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
