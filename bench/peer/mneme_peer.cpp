// Mneme's half of the comparison with llama.cpp: the same verbs on the same id files as llamacpp_peer.cpp,
// through the public API only, so that logits travel as binary float32 instead of JSON.
//
//   mneme_peer logits MODEL --ids FILE --out FILE [--kv f16|f32|int8] [--activation auto|float|int8]
//   [--threads N] mneme_peer nll MODEL --ids FILE [--skip N] ... mneme_peer generate MODEL --ids FILE [--n
//   32] ...
// FILE holds one sequence a line: space-separated token ids.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "mneme/error.h"
#include "mneme/session.h"

namespace {

using Ids = std::vector<mneme::TokenId>;
using Flags = std::map<std::string, std::string>;

std::string get(const Flags& flags, const std::string& name, const std::string& otherwise) {
  const auto found = flags.find(name);
  return found == flags.end() ? otherwise : found->second;
}

std::vector<Ids> read_sequences(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw mneme::Error(mneme::ErrorCode::not_found, "cannot read " + path);
  std::vector<Ids> sequences;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    Ids ids;
    for (mneme::TokenId id; words >> id;) ids.push_back(id);
    if (!ids.empty()) sequences.push_back(ids);
  }
  return sequences;
}

mneme::SessionOptions session_options(const Flags& flags) {
  mneme::SessionOptions options;
  const std::string kv = get(flags, "kv", "f16");
  options.kv = kv == "f32" ? mneme::KvType::f32 : kv == "int8" ? mneme::KvType::int8 : mneme::KvType::f16;
  return options;
}

mneme::LoadOptions load_options(const Flags& flags) {
  mneme::LoadOptions options;
  options.threads = std::stoi(get(flags, "threads", "0"));
  const std::string activation = get(flags, "activation", "auto");
  options.activation = activation == "float"  ? mneme::Activation::float_
                       : activation == "int8" ? mneme::Activation::int8
                                              : mneme::Activation::automatic;
  return options;
}

int argmax(std::span<const float> row) {
  return static_cast<int>(std::max_element(row.begin(), row.end()) - row.begin());
}

double negative_log_likelihood(std::span<const float> row, mneme::TokenId target) {
  const double top = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float logit : row) sum += std::exp(static_cast<double>(logit) - top);
  return std::log(sum) + top - static_cast<double>(row[static_cast<size_t>(target)]);
}

// Calls visit(position, row) for every position of one sequence.
template <class Visit>
void visit_logits(const std::shared_ptr<const mneme::Model>& model, const Flags& flags, const Ids& ids,
                  Visit visit) {
  const size_t vocab = model->config().vocab;
  mneme::AppendOptions append;
  append.all_logits = true;
  append.on_logits = [&](uint64_t first, uint64_t count, const float* logits) {
    for (uint64_t i = 0; i < count; ++i) visit(first + i, std::span<const float>(logits + i * vocab, vocab));
  };
  mneme::Session session(model, session_options(flags));
  session.append(ids, append);
}

void logits(const std::shared_ptr<const mneme::Model>& model, const Flags& flags) {
  std::ofstream out(get(flags, "out", ""), std::ios::binary);
  if (!out) throw mneme::Error(mneme::ErrorCode::io, "cannot write --out");
  for (const Ids& ids : read_sequences(get(flags, "ids", "")))
    visit_logits(model, flags, ids, [&](uint64_t, std::span<const float> row) {
      out.write(reinterpret_cast<const char*>(row.data()), static_cast<std::streamsize>(row.size_bytes()));
    });
}

void nll(const std::shared_ptr<const mneme::Model>& model, const Flags& flags) {
  const size_t skip = std::stoul(get(flags, "skip", "0"));
  for (const Ids& ids : read_sequences(get(flags, "ids", ""))) {
    visit_logits(model, flags, ids, [&](uint64_t position, std::span<const float> row) {
      if (position >= skip && position + 1 < ids.size())
        std::printf("%.7g ", negative_log_likelihood(row, ids[position + 1]));
    });
    std::puts("");
  }
}

void generate(const std::shared_ptr<const mneme::Model>& model, const Flags& flags) {
  const int n = std::stoi(get(flags, "n", "32"));
  const auto stops = model->tokenizer().stop_tokens();
  for (const Ids& ids : read_sequences(get(flags, "ids", ""))) {
    mneme::Session session(model, session_options(flags));
    std::span<const float> row = session.append(ids);
    for (int i = 0; i < n; ++i) {
      const mneme::TokenId best = argmax(row);
      std::printf("%d ", best);
      if (std::find(stops.begin(), stops.end(), best) != stops.end()) break;
      if (i + 1 < n) row = session.append(std::span(&best, 1));
    }
    std::puts("");
  }
}

int run(int argc, char** argv) {
  const std::string verb = argc > 2 ? argv[1] : "";
  if (verb != "logits" && verb != "nll" && verb != "generate") {
    std::fputs("usage: mneme_peer logits|nll|generate MODEL --ids FILE [--name value]...\n", stderr);
    return 2;
  }
  Flags flags;
  for (int i = 3; i + 1 < argc; i += 2) flags[std::string(argv[i]).substr(2)] = argv[i + 1];
  const auto model = mneme::Model::load(argv[2], load_options(flags));
  if (verb == "logits") logits(model, flags);
  if (verb == "nll") nll(model, flags);
  if (verb == "generate") generate(model, flags);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mneme_peer: %s\n", error.what());
    return 1;
  }
}
