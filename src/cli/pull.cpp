// `mneme pull hf:USER/REPO[:FILE]`: fetches a model from a Hub-compatible host into the store. What the host
// lists is read by hub_files.h, one file is fetched by download.h.
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>

#include "cli/download.h"
#include "cli/hub_files.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/store.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/paths.h"

namespace mneme::cli::pull_verb {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLongestListing = size_t{64} << 20;

struct Options {
  CommonOptions common;
  std::string reference;
  std::string endpoint = "https://huggingface.co";
  std::string revision = "main";
  int retries = 6;
  double timeout = 30;
};

Url under(const Url& endpoint, const std::string& path) {
  Url url = endpoint;
  while (url.path.ends_with('/')) url.path.pop_back();
  url.path += path;
  return url;
}

/// GET of the repository's description, repeated when the connection fails.
std::string fetch_listing(const Url& url, const Options& options, const HttpOptions& http,
                          const std::string& repository) {
  for (int attempt = 0;; ++attempt) {
    std::string text;
    const HttpResult result = http_get(
        url, std::nullopt, http, [](const HttpHead& head) { return head.status == 200; },
        [&](std::string_view data) {
          require(text.size() + data.size() <= kLongestListing, ErrorCode::corrupt,
                  "the host's description of {} is longer than 64 MB", repository);
          text += data;
          return true;
        });
    const int status = result.head ? result.head->status : 0;
    if (status == 200 && result.error.empty()) return text;
    const bool may_pass = status == 0 || status == 200 || status == 408 || status == 429 || status >= 500;
    require(status != 401 && status != 403, ErrorCode::network,
            "{}: {} knows no such repository, or it is private or gated (status {}); if it exists, set "
            "HF_TOKEN to a "
            "token that may read it",
            repository, url.origin(), status);
    require(status != 404, ErrorCode::not_found, "{}: {} has no such repository, or no revision \"{}\"",
            repository, url.origin(), options.revision);
    require(may_pass && attempt < options.retries, ErrorCode::network, "{}: {} ({})", repository,
            result.error.empty() ? fmt::format("the host answers with status {}", status) : result.error,
            url.origin());
    for (int tick = 0; tick < 12 * (1 << std::min(attempt, 6)); ++tick) {
      require(http.cancel == nullptr || !http.cancel->cancelled(), ErrorCode::cancelled, "interrupted");
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
}

DownloadResult fetch_file(const HubFile& file, const Url& url, const fs::path& target,
                          const std::string& title, const Options& options, const HttpOptions& http) {
  const auto start = std::chrono::steady_clock::now();
  DownloadResult result;
  uint64_t first = 0;
  {
    Progress progress(title, Progress::Unit::bytes, !options.common.quiet);
    bool seen = false;
    DownloadRequest request{.url = url,
                            .target = target,
                            .bytes = file.bytes,
                            .sha256 = file.sha256,
                            .retries = options.retries,
                            .http = http};
    request.progress = [&](uint64_t done, uint64_t total) {
      if (!seen) first = done;
      seen = true;
      progress.update(done, total);
    };
    request.on_retry = [&](const std::string& reason) {
      progress.clear();
      if (!options.common.quiet) fmt::print(stderr, "{}: {}; trying again\n", title, reason);
    };
    result = download(request);
  }
  if (options.common.quiet) return result;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double got = static_cast<double>(result.bytes - std::min(first, result.bytes));
  if (result.was_there) {
    fmt::print(stderr, "{}: already there\n", title);
  } else {
    fmt::print(stderr, "{}: {} in {:.1f} s ({}/s), {}\n", title,
               human_bytes(static_cast<double>(result.bytes)), seconds,
               human_bytes(got / std::max(seconds, 1e-3)),
               result.verified ? "SHA-256 verified" : "size verified");
  }
  return result;
}

int run(const Options& options) {
  const HubReference reference = parse_hub_reference(options.reference);
  const Url endpoint = parse_url(options.endpoint);
  const InterruptScope interrupt;
  const char* token = std::getenv("HF_TOKEN");
  const HttpOptions http{.token = token == nullptr ? "" : token,
                         .token_origin = endpoint.origin(),
                         .timeout_s = options.timeout,
                         .cancel = &interrupt.token()};

  std::string api = "/api/models/" + reference.repository();
  if (options.revision != "main") api += "/revision/" + encode_path(options.revision);
  const std::string listing =
      fetch_listing(under(endpoint, api + "?blobs=true"), options, http, reference.repository());
  const std::vector<HubFile> files = choose_hub_files(parse_hub_listing(listing, reference.repository()),
                                                      reference.file, reference.repository());

  const fs::path folder = models_folder() / reference.user / reference.repo;
  const std::string resolve =
      "/" + reference.repository() + "/resolve/" + encode_path(options.revision) + "/";
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string title =
        files.size() == 1 ? files[i].name : fmt::format("{} ({} of {})", files[i].name, i + 1, files.size());
    fetch_file(files[i], under(endpoint, resolve + encode_path(files[i].name)), folder / files[i].name, title,
               options, http);
  }

  const bool gguf = files.front().name.ends_with(".gguf");
  const fs::path path = gguf ? folder / files.front().name : folder;
  for (const StoredModel& model : stored_models()) {
    if (model.path != path) continue;
    if (options.common.json) {
      print_json(
          {{"name", model.name}, {"path", path.string()}, {"type", model.type}, {"bytes", model.bytes}});
    } else {
      print(model.name + "\n");
    }
    return kDone;
  }
  fail(ErrorCode::internal, "{} was fetched to {}, but the store does not show it", options.reference,
       path.string());
}

const VerbRegistration registration(
    {.name = "pull",
     .summary = "Fetch a model from a Hugging Face-compatible host into the local store",
     .group = Group::models,
     .examples =
         {{"mneme pull hf:bartowski/Qwen2.5-0.5B-Instruct-GGUF", "its Q4_K_M file, or what comes nearest"},
          {"mneme pull hf:bartowski/Qwen2.5-0.5B-Instruct-GGUF:Q8_0", "the file whose name has Q8_0 in it"},
          {"mneme pull hf:HuggingFaceTB/SmolLM2-135M-Instruct", "no GGUF there: the safetensors folder"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_option("model", options->reference,
                      "hf:USER/REPO, or hf:USER/REPO:FILE with a name or a part of one")
           ->type_name("hf:USER/REPO[:FILE]")
           ->required();
       app.add_option("--endpoint", options->endpoint,
                      "The host (HF_TOKEN in the environment holds a token for it)")
           ->type_name("URL")
           ->envname("HF_ENDPOINT")
           ->group("Transfer");
       app.add_option("--revision", options->revision, "Branch, tag or commit")
           ->type_name("NAME")
           ->group("Transfer");
       app.add_option("--retries", options->retries, "Attempts in a row that bring nothing before giving up")
           ->check(CLI::Range(0, 100).description(""))
           ->type_name("N")
           ->group("Transfer");
       app.add_option("--timeout", options->timeout,
                      "Seconds without a byte after which a connection counts as cut")
           ->check(CLI::Range(0.1, 3600.0).description(""))
           ->type_name("SECONDS")
           ->group("Transfer");
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::pull_verb
