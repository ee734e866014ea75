// Time and memory of reading one long text, against its length: a single session reads pseudo-random ids, and
// at every power of two and every 65,536 tokens a JSON line says how long that took so far. A run of millions
// of tokens can be interrupted: with --state the session is saved on the way and at the end, with the log
// that was written so far beside it, and the next run goes on from there.
//
//   prefill_curve MODEL --tokens 1048576 --log curve.jsonl [--state curve.session] [--kv f16] [--threads N]
//
// Called by bench/hybrid.py.
#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "mneme/error.h"
#include "mneme/session.h"

namespace {

using namespace mneme;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string model, log, state, kv = "f16";
  uint64_t tokens = 1 << 20, save_every = 1 << 18;
  int threads = 0;
};

std::atomic<bool> interrupted{false};

uint64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * 4096;
}

TokenId id_at(uint64_t position, uint32_t vocab) {
  uint64_t x = position * 0x9e3779b97f4a7c15ULL + 1;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  return static_cast<TokenId>((x ^ (x >> 27)) % vocab);
}

/// User and system time of all threads so far. Where other programs share the machine, this is what a run
/// cost.
double cpu_now() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

struct Spent {
  double seconds = 0, cpu = 0;
};

// Length and seconds that earlier runs reached; lines beyond what the saved state holds are forgotten.
Spent spent_until(const std::string& log, uint64_t position) {
  std::ifstream in(log);
  std::string kept;
  Spent spent;
  for (std::string line; std::getline(in, line);) {
    const auto row = nlohmann::json::parse(line);
    if (row.at("tokens").get<uint64_t>() > position) break;
    spent = {row.at("seconds").get<double>(), row.value("cpu_seconds", 0.0)};
    kept += line + "\n";
  }
  std::ofstream(log) << kept;
  return spent;
}

bool reported(uint64_t tokens, uint64_t last) {
  return tokens == last || (tokens >= 1024 && (tokens & (tokens - 1)) == 0) || tokens % 65536 == 0;
}

int run(const Options& options) {
  LoadOptions load;
  load.threads = options.threads;
  const auto model = Model::load(options.model, load);
  SessionOptions how;
  how.kv = options.kv == "int8" ? KvType::int8 : options.kv == "f32" ? KvType::f32 : KvType::f16;
  how.max_context = static_cast<uint32_t>(options.tokens);
  Session session(model, how);
  if (!options.state.empty() && std::ifstream(options.state).good())
    session.restore(Snapshot::load(options.state));
  auto [seconds, cpu] = spent_until(options.log, session.position());
  std::ofstream log(options.log, std::ios::app);
  std::vector<TokenId> ids;
  constexpr uint64_t kStep = 1024;
  while (session.position() < options.tokens && !interrupted) {
    ids.clear();
    for (uint64_t at = session.position(); at < std::min(session.position() + kStep, options.tokens); ++at)
      ids.push_back(id_at(at, model->config().vocab));
    const auto start = Clock::now();
    const double cpu_start = cpu_now();
    session.append(ids);
    cpu += cpu_now() - cpu_start;
    seconds += std::chrono::duration<double>(Clock::now() - start).count();
    const uint64_t position = session.position();
    if (reported(position, options.tokens)) {
      const nlohmann::json row{{"tokens", position},
                               {"seconds", seconds},
                               {"cpu_seconds", cpu},
                               {"rss_bytes", resident_bytes()},
                               {"state_bytes", session.state_bytes()}};
      log << row.dump() << std::endl;
      std::printf("%s\n", row.dump().c_str());
      std::fflush(stdout);
    }
    if (!options.state.empty() && position % options.save_every == 0) session.snapshot().save(options.state);
  }
  if (!options.state.empty()) session.snapshot().save(options.state);
  return interrupted ? 130 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Time and memory of reading a long text against its length");
  app.add_option("model", options.model)->required();
  app.add_option("--log", options.log, "File of JSON lines; earlier lines are kept")->required();
  app.add_option("--tokens", options.tokens)->capture_default_str();
  app.add_option("--state", options.state, "File that keeps the session between runs");
  app.add_option("--save-every", options.save_every)->capture_default_str();
  app.add_option("--kv", options.kv)->check(CLI::IsMember({"f16", "int8", "f32"}));
  app.add_option("--threads", options.threads);
  CLI11_PARSE(app, argc, argv);
  std::signal(SIGINT, [](int) { interrupted = true; });
  std::signal(SIGTERM, [](int) { interrupted = true; });
  try {
    return run(options);
  } catch (const Error& error) {
    std::fprintf(stderr, "prefill_curve: %s\n", error.what());
    return 1;
  }
}
