// Drives llama.cpp (the peer) through its public C API so that both programs answer the same questions: how
// fast, and with which logits. Built by bench/setup_peer.sh against the peer's own headers and prebuilt
// libraries; it is not part of Mneme's build and links nothing of it.
//
//   llamacpp_peer bench MODEL --tests pp512,tg128,tg32@4096 [--threads 2] [--flash on|off] [--ubatch 512]
//   [--repeat 1]
//                             [--kv f16|f32|q8_0] [--state DIR] [--synthetic yes]
//       One JSON object a line: {"test","depth","tokens_per_second":[...]}. tgN@D decodes N tokens after D
//       positions. Filling D positions is slow, so with --state its result is kept in DIR and read back by
//       later runs. With --synthetic the D positions are 1,024 that were read, repeated.
//   llamacpp_peer fill MODEL --depth D --state DIR ...
//       Only that: prepares D positions (continuing from D - 1024 n, if there) for a later `bench`.
//   llamacpp_peer logits MODEL --ids FILE --out FILE [--kv f16|f32] ...
//       FILE: one line of space-separated ids per sequence. Writes float32 logits [positions, vocab], all
//       sequences.
//   llamacpp_peer nll MODEL --ids FILE [--skip N] ...
//       One line per sequence: the negative log-likelihoods of ids[N+1..] given what precedes them (N:
//       context only).
//   llamacpp_peer generate MODEL --ids FILE --n 32 ...
//       Greedy continuations: one line of ids per sequence; a sequence ends early at an end-of-generation
//       token.
//   llamacpp_peer tokenize MODEL --text FILE
//       Ids of the whole file, without special tokens added.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "llama.h"

namespace {

using Ids = std::vector<llama_token>;
using Options = std::map<std::string, std::string>;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string get(const Options& options, const std::string& name, const std::string& otherwise) {
  const auto found = options.find(name);
  return found == options.end() ? otherwise : found->second;
}

std::vector<Ids> read_sequences(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw std::runtime_error("cannot read " + path);
  std::vector<Ids> sequences;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    Ids ids;
    for (llama_token id; words >> id;) ids.push_back(id);
    if (!ids.empty()) sequences.push_back(ids);
  }
  return sequences;
}

// One context of a model; every decode() appends to sequence 0.
class Context {
 public:
  Context(llama_model* model, const Options& options, uint32_t positions)
      : vocab_size_(llama_vocab_n_tokens(llama_model_get_vocab(model))),
        batch_(static_cast<uint32_t>(std::stoul(get(options, "batch", "2048")))) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = (positions + 255) / 256 * 256;
    params.n_batch = batch_;
    params.n_ubatch = static_cast<uint32_t>(std::stoul(get(options, "ubatch", "512")));
    params.n_threads = params.n_threads_batch = std::stoi(get(options, "threads", "2"));
    params.flash_attn_type =
        get(options, "flash", "on") == "on" ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    const std::string kv = get(options, "kv", "f16");
    params.type_k = params.type_v = kv == "f32"    ? GGML_TYPE_F32
                                    : kv == "q8_0" ? GGML_TYPE_Q8_0
                                                   : GGML_TYPE_F16;
    params.n_seq_max = 2;  // the second one only while a synthetic context is put together
    params.kv_unified = true;
    params.no_perf = true;
    context_ = llama_init_from_model(model, params);
    if (context_ == nullptr) throw std::runtime_error("llama_init_from_model failed");
  }
  ~Context() { llama_free(context_); }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  llama_context* get_context() { return context_; }
  int vocab() const { return vocab_size_; }
  void clear() { llama_memory_clear(llama_get_memory(context_), false); }
  void truncate(int position) {
    if (!llama_memory_seq_rm(llama_get_memory(context_), 0, position, -1))
      throw std::runtime_error("rollback refused");
  }

  // Makes `depth` positions of the first `period`, which must have been decoded: their state is read in again
  // as a second sequence, moved behind the first, and given to it. (Positions move by rotating the keys, at
  // the next decode.)
  void repeat_to(int depth, int period) {
    llama_memory_t memory = llama_get_memory(context_);
    std::vector<uint8_t> state(llama_state_seq_get_size(context_, 0));
    llama_state_seq_get_data(context_, state.data(), state.size(), 0);
    for (int at = period; at < depth; at += period) {
      if (llama_state_seq_set_data(context_, state.data(), state.size(), 1) == 0)
        throw std::runtime_error("llama_state_seq_set_data refused");
      llama_memory_seq_add(memory, 1, 0, -1, at);
      llama_memory_seq_cp(memory, 1, 0, -1, -1);
      llama_memory_seq_rm(memory, 1, -1, -1);
    }
    if (llama_memory_seq_pos_max(memory, 0) != depth - 1)
      throw std::runtime_error("the synthetic context did not reach its depth");
  }

  // Logits of the last id only.
  void decode(const llama_token* ids, size_t count) {
    for (size_t done = 0; done < count; done += batch_) {
      const auto part = static_cast<int32_t>(std::min<size_t>(batch_, count - done));
      run(llama_batch_get_one(const_cast<llama_token*>(ids + done), part));
    }
    llama_synchronize(context_);
  }

  // Calls visit(position, logits) for every id.
  template <class Visit>
  void decode_all(const Ids& ids, Visit visit) {
    const size_t step = 256;  // outputs held at once
    llama_batch batch = llama_batch_init(static_cast<int32_t>(step), 0, 1);
    for (size_t first = 0; first < ids.size(); first += step) {
      batch.n_tokens = static_cast<int32_t>(std::min(step, ids.size() - first));
      for (int i = 0; i < batch.n_tokens; ++i) {
        batch.token[i] = ids[first + static_cast<size_t>(i)];
        batch.pos[i] = static_cast<llama_pos>(first) + i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
      }
      run(batch);
      for (int i = 0; i < batch.n_tokens; ++i)
        visit(first + static_cast<size_t>(i), llama_get_logits_ith(context_, i));
    }
    llama_batch_free(batch);
  }

 private:
  void run(llama_batch batch) {
    if (const int status = llama_decode(context_, batch); status != 0)
      throw std::runtime_error("llama_decode returned " + std::to_string(status));
  }

  int vocab_size_;
  uint32_t batch_;
  llama_context* context_ = nullptr;
};

struct Test {
  std::string name;
  bool decode = false;
  int tokens = 0;
  int depth = 0;
};

std::vector<Test> parse_tests(const std::string& text) {
  std::vector<Test> tests;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, ',');) {
    const size_t at = word.find('@');
    tests.push_back({word, word.rfind("tg", 0) == 0, std::stoi(word.substr(2, at - 2)),
                     at == std::string::npos ? 0 : std::stoi(word.substr(at + 1))});
  }
  return tests;
}

Ids random_ids(size_t count, int vocab) {
  std::mt19937 engine(7);
  Ids ids(count);
  for (auto& id : ids) id = static_cast<llama_token>(engine() % static_cast<unsigned>(vocab));
  return ids;
}

std::string state_path(const Options& options, const std::string& model_path, int depth) {
  return get(options, "state", "") + "/" + model_path.substr(model_path.rfind('/') + 1) + "-" +
         std::to_string(depth) + "-" + get(options, "flash", "on") + "-" + get(options, "kv", "f16") +
         ".state";
}

bool load_state(Context& context, const std::string& path, const Ids& ids) {
  Ids loaded(ids.size());
  size_t count = 0;
  const bool same =
      std::ifstream(path).good() &&
      llama_state_load_file(context.get_context(), path.c_str(), loaded.data(), loaded.size(), &count) &&
      count == ids.size() && loaded == ids;
  if (!same) context.clear();
  return same;
}

// Fills `depth` positions, or reads them (or the first part of them) back from files of earlier runs with the
// same model and settings. The ids of a shorter depth are a prefix of those of a longer one.
void fill(Context& context, const Options& options, const std::string& model_path, int depth) {
  const Ids ids = random_ids(static_cast<size_t>(depth), context.vocab());
  const bool keep = options.count("state") > 0;
  int done = 0;
  for (int known = depth; keep && known > 0 && done == 0; known -= 1024)
    if (load_state(context, state_path(options, model_path, known), Ids(ids.begin(), ids.begin() + known)))
      done = known;
  if (done == depth) return;
  context.decode(ids.data() + done, static_cast<size_t>(depth - done));
  if (keep)
    llama_state_save_file(context.get_context(), state_path(options, model_path, depth).c_str(), ids.data(),
                          ids.size());
}

// A context that costs as much as one that was read: 1,024 positions, again and again.
void fill_synthetic(Context& context, int depth) {
  constexpr int kPeriod = 1024;
  if (depth % kPeriod != 0) throw std::runtime_error("a synthetic depth must be a multiple of 1024");
  const Ids ids = random_ids(kPeriod, context.vocab());
  context.decode(ids.data(), ids.size());
  context.repeat_to(depth, kPeriod);
}

void bench(llama_model* model, const std::string& path, const Options& options) {
  const int repeat = std::stoi(get(options, "repeat", "1"));
  for (const Test& test : parse_tests(get(options, "tests", "pp512,tg128"))) {
    Context context(model, options, static_cast<uint32_t>(test.depth + test.tokens + 16));
    const Ids ids = random_ids(static_cast<size_t>(test.tokens), context.vocab());
    if (test.depth > 0 && get(options, "synthetic", "no") == "yes")
      fill_synthetic(context, test.depth);
    else if (test.depth > 0)
      fill(context, options, path, test.depth);
    std::string rates;
    for (int run = -1; run < repeat; ++run) {  // run -1 warms up
      if (test.depth > 0)
        context.truncate(test.depth);
      else
        context.clear();
      const size_t count = run >= 0 ? ids.size() : std::min<size_t>(ids.size(), test.decode ? 8 : 64);
      const double start = now();
      if (test.decode)
        for (size_t i = 0; i < count; ++i) context.decode(&ids[i], 1);
      else
        context.decode(ids.data(), count);
      const double seconds = now() - start;
      if (run >= 0)
        rates += (rates.empty() ? "" : ",") + std::to_string(static_cast<double>(count) / seconds);
    }
    std::printf("{\"test\":\"%s\",\"depth\":%d,\"tokens_per_second\":[%s]}\n", test.name.c_str(), test.depth,
                rates.c_str());
    std::fflush(stdout);
  }
}

void fill_only(llama_model* model, const std::string& path, const Options& options) {
  const int depth = std::stoi(get(options, "depth", "4096"));
  Context context(model, options, static_cast<uint32_t>(depth));
  fill(context, options, path, depth);
}

uint32_t longest(const std::vector<Ids>& sequences) {
  size_t most = 1;
  for (const Ids& ids : sequences) most = std::max(most, ids.size());
  return static_cast<uint32_t>(most);
}

void logits(llama_model* model, const Options& options) {
  const auto sequences = read_sequences(get(options, "ids", ""));
  std::ofstream out(get(options, "out", ""), std::ios::binary);
  if (!out) throw std::runtime_error("cannot write --out");
  Context context(model, options, longest(sequences) + 8);
  for (const Ids& ids : sequences) {
    context.clear();
    context.decode_all(ids, [&](size_t, const float* row) {
      out.write(reinterpret_cast<const char*>(row),
                static_cast<std::streamsize>(sizeof(float)) * context.vocab());
    });
  }
}

double negative_log_likelihood(const float* row, int vocab, llama_token target) {
  const float top = *std::max_element(row, row + vocab);
  double sum = 0;
  for (int i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(row[i]) - top);
  return std::log(sum) + top - row[target];
}

void nll(llama_model* model, const Options& options) {
  const auto sequences = read_sequences(get(options, "ids", ""));
  const size_t skip = std::stoul(get(options, "skip", "0"));
  Context context(model, options, longest(sequences) + 8);
  for (const Ids& ids : sequences) {
    context.clear();
    std::string line;
    context.decode_all(ids, [&](size_t position, const float* row) {
      if (position < skip || position + 1 >= ids.size()) return;
      char text[32];
      std::snprintf(text, sizeof text, "%.7g ",
                    negative_log_likelihood(row, context.vocab(), ids[position + 1]));
      line += text;
    });
    std::puts(line.c_str());
  }
}

void generate(llama_model* model, const Options& options) {
  const auto sequences = read_sequences(get(options, "ids", ""));
  const int n = std::stoi(get(options, "n", "32"));
  const llama_vocab* vocab = llama_model_get_vocab(model);
  Context context(model, options, longest(sequences) + static_cast<uint32_t>(n) + 8);
  for (const Ids& ids : sequences) {
    context.clear();
    context.decode(ids.data(), ids.size());
    for (int i = 0; i < n; ++i) {
      const float* row = llama_get_logits_ith(context.get_context(), -1);
      const auto best = static_cast<llama_token>(std::max_element(row, row + context.vocab()) - row);
      std::printf("%d ", best);
      if (llama_vocab_is_eog(vocab, best)) break;
      if (i + 1 < n) context.decode(&best, 1);
    }
    std::puts("");
  }
}

void tokenize(llama_model* model, const Options& options) {
  std::ifstream in(get(options, "text", ""), std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  Ids ids(text.size() + 8);
  const int count =
      llama_tokenize(llama_model_get_vocab(model), text.data(), static_cast<int32_t>(text.size()), ids.data(),
                     static_cast<int32_t>(ids.size()), false, false);
  for (int i = 0; i < count; ++i) std::printf("%d ", ids[static_cast<size_t>(i)]);
  std::puts("");
}

int run(int argc, char** argv) {
  if (argc < 3)
    throw std::runtime_error(
        "usage: llamacpp_peer bench|fill|logits|nll|generate|tokenize MODEL [--name value]...");
  Options options;
  for (int i = 3; i + 1 < argc; i += 2) options[std::string(argv[i]).substr(2)] = argv[i + 1];
  if (get(options, "verbose", "no") == "no")
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  const std::string command = argv[1];
  if (const char* backends = std::getenv("PEER_BACKENDS"))
    ggml_backend_load_all_from_path(backends);
  else
    ggml_backend_load_all();
  llama_backend_init();
  llama_model_params params = llama_model_default_params();
  params.vocab_only = command == "tokenize";
  llama_model* model = llama_model_load_from_file(argv[2], params);
  if (model == nullptr) throw std::runtime_error(std::string("llama.cpp cannot load ") + argv[2]);
  if (command == "bench")
    bench(model, argv[2], options);
  else if (command == "fill")
    fill_only(model, argv[2], options);
  else if (command == "logits")
    logits(model, options);
  else if (command == "nll")
    nll(model, options);
  else if (command == "generate")
    generate(model, options);
  else if (command == "tokenize")
    tokenize(model, options);
  else
    throw std::runtime_error("unknown command " + command);
  llama_model_free(model);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "llamacpp_peer: %s\n", error.what());
    return 1;
  }
}
