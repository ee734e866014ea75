// Load time and encoding speed of a model's tokenizer: MNEME_TEST_MODEL or the default model of the store,
// and the text of this program's own sources and corpus.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>

#include "core/paths.h"
#include "mneme/error.h"
#include "model/tokenizer_from_gguf.h"

namespace {

std::unique_ptr<mneme::GgufFile> model;

std::string prose() {
  std::string text;
  for (int i = 0; text.size() < (1u << 20); ++i)
    text += "Everyone has the right to freedom of thought, conscience and religion (article " +
            std::to_string(i) + "). Mọi người đều có quyền tự do. ";
  return text;
}

void load(benchmark::State& state) {
  for (auto _ : state)
    benchmark::DoNotOptimize(mneme::make_tokenizer(mneme::tokenizer_spec_from_gguf(model->metadata())));
}

void encode(benchmark::State& state, const std::string& text) {
  const auto tokenizer = mneme::make_tokenizer(mneme::tokenizer_spec_from_gguf(model->metadata()));
  size_t tokens = 0;
  for (auto _ : state) tokens = tokenizer->encode(text).size();
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
  state.counters["tokens"] = static_cast<double>(tokens);
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  try {
    const char* path = std::getenv("MNEME_TEST_MODEL");
    model = mneme::GgufFile::open(path ? mneme::fs::path(path)
                                       : mneme::models_folder() / "SmolLM2-135M-Instruct.Q4_1.gguf");
    benchmark::RegisterBenchmark("load", load)->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark("encode/prose", encode, prose())->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark("encode/one word of 1 MB", encode, std::string(1 << 20, 'a'))
        ->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark("encode/1 MB of spaces", encode, std::string(1 << 20, ' '))
        ->Unit(benchmark::kMillisecond);
    benchmark::RunSpecifiedBenchmarks();
  } catch (const mneme::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
