#include "train/data/shard_build.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/checksum.h"
#include "core/fail.h"
#include "core/thread_pool.h"
#include "text/tokenizer_fingerprint.h"
#include "train/data/shard_manifest.h"

namespace mneme::train {
namespace {

constexpr uint64_t kMinBatchBytes = uint64_t{4} << 10;  // of text that is encoded at once: about what one
constexpr uint64_t kMaxBatchBytes = uint64_t{4} << 20;  // shard holds, within these limits
constexpr uint64_t kMaxShardTokens = uint64_t{1} << 30;

// One builder at a time: processes of one run that share the folder wait for the first, and find its work.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& folder) {
    const fs::path path = folder / ".lock";
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    require(fd_ >= 0, ErrorCode::io, "cannot write to {}: {}", folder.string(), std::strerror(errno));
    while (::flock(fd_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  ~FolderLock() { ::close(fd_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_;
};

bool is_shard_name(const std::string& name) {
  return name.ends_with(".tokens") && (name.starts_with("train-") || name.starts_with("validation-"));
}

void remove_file(const fs::path& path) {
  std::error_code error;
  fs::remove(path, error);
  require(!error, ErrorCode::io, "cannot remove {}: {}", path.string(), error.message());
}

void remove_set(const fs::path& folder) {
  remove_file(folder / kManifestName);  // first: without it the rest is no set
  remove_file(folder / kPartialManifestName);
  std::vector<fs::path> shards;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    if (is_shard_name(at->path().filename().string())) shards.push_back(at->path());
  require(!error, ErrorCode::io, "cannot list {}: {}", folder.string(), error.message());
  for (const fs::path& path : shards) remove_file(path);
}

double unit_interval(uint64_t bits) noexcept {
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

class Builder {
 public:
  Builder(const std::vector<std::string>& inputs, const Tokenizer& tokenizer, const fs::path& folder,
          const ShardOptions& options)
      : tokenizer_(tokenizer), folder_(folder), options_(options), pool_(options.threads, false) {
    const TokenId end = options.end_token >= 0 ? options.end_token : tokenizer.eos();
    require(end >= 0 && static_cast<uint32_t>(end) < tokenizer.vocab_size(), ErrorCode::invalid_argument,
            "documents need a token to end with, but the tokenizer has no EOS; name one of its {} tokens",
            tokenizer.vocab_size());
    manifest_.end_token = static_cast<uint32_t>(end);
    manifest_.vocab = tokenizer.vocab_size();
    manifest_.tokenizer = tokenizer_fingerprint(tokenizer);
    for (TextFile& file : list_text_files(inputs)) {
      file.path = fs::absolute(file.path).lexically_normal();
      total_bytes_ += file.bytes;
      manifest_.sources.push_back({std::move(file), {}});
    }
    manifest_.options = fmt::format(
        "field {}, pieces of {} bytes, binary files {}, validation {} by seed {}, shards of {} tokens",
        options.documents.field, options.documents.piece_bytes,
        options.documents.skip_binary ? "left out" : "refused", options.validation, options.split_seed,
        options.shard_tokens);
    manifest_.identity = identity();
  }

  ShardReport run() {
    if (finished_set_is_there()) return report(true);
    resume();
    while (source_ < manifest_.sources.size()) {
      encode_batch(read_batch());
      if (splits_[0].tokens.size() >= options_.shard_tokens ||
          splits_[1].tokens.size() >= options_.shard_tokens)
        write_part();
    }
    write_part();
    require(!manifest_.shards.empty(), ErrorCode::invalid_argument,
            "the {} files hold no text, only white space; name files with text", manifest_.sources.size());
    finish();
    return report(false);
  }

 private:
  struct Buffer {
    std::vector<uint32_t> tokens;
    std::vector<uint64_t> documents;
    uint64_t text_bytes = 0;
  };
  const Tokenizer& tokenizer_;
  const fs::path folder_;
  const ShardOptions& options_;
  ThreadPool pool_;
  ShardManifest manifest_;
  Buffer splits_[2];
  std::unique_ptr<DocumentReader> reader_;
  uint64_t source_ = 0;    // being read
  uint64_t position_ = 0;  // where it goes on, if reader_ is not there
  uint64_t part_ = 0;      // number of the next pair of shards
  uint64_t done_bytes_ = 0, total_bytes_ = 0, resumed_bytes_ = 0;  // of text files

  uint64_t identity() const {
    std::string text = fmt::format("{}\n{}\n{}\n{}\n", manifest_.tokenizer, manifest_.vocab,
                                   manifest_.end_token, manifest_.options);
    for (const SourceEntry& source : manifest_.sources)
      text += fmt::format("{} {}\n", source.file.bytes, source.file.path.string());
    return xxh3(std::as_bytes(std::span(text)));
  }

  bool finished_set_is_there() {
    auto there = read_shard_manifest(folder_ / kManifestName);
    if (!there) return false;
    std::string difference;
    if (there->tokenizer != manifest_.tokenizer)
      difference = "another tokenizer";
    else if (there->options != manifest_.options || there->end_token != manifest_.end_token)
      difference = fmt::format("other options ({})", there->options);
    else if (there->identity != manifest_.identity)
      difference = "other texts, or texts that have changed since";
    for (const SourceEntry& source : there->sources)
      if (difference.empty()) difference = source_change(source);
    if (difference.empty()) {
      manifest_ = std::move(*there);
      return true;
    }
    require(options_.rebuild, ErrorCode::mismatch,
            "{} holds the shards of something else: {}; build them again, or name another folder",
            folder_.string(), difference);
    remove_set(folder_);
    return false;
  }

  // Takes over what an interrupted call has finished, if it did the same work on the same files.
  void resume() {
    auto there = read_shard_manifest(folder_ / kPartialManifestName);
    if (!there) return remove_set(folder_);
    bool usable = there->identity == manifest_.identity && there->sources.size() == manifest_.sources.size();
    for (size_t i = 0; usable && i < there->sources.size(); ++i)
      usable = there->sources[i].file == manifest_.sources[i].file;
    for (const ShardEntry& shard : there->shards) usable = usable && is_intact(shard);
    if (!usable) return remove_set(folder_);
    manifest_ = std::move(*there);
    source_ = manifest_.source;
    position_ = manifest_.position;
    for (const ShardEntry& shard : manifest_.shards) part_ = std::max(part_, number_of(shard.file) + 1);
    for (uint64_t i = 0; i < source_; ++i) done_bytes_ += manifest_.sources[i].file.bytes;
    resumed_bytes_ = done_bytes_ + position_;
  }

  bool is_intact(const ShardEntry& shard) const {
    const fs::path path = folder_ / shard.file;
    if (!fs::exists(path)) return false;
    try {
      const MappedFile file(path, LoadMode::mmap);
      const TokenShardInfo info = read_token_shard_header(file.bytes(), path.string());
      if (info.payload != shard.payload || info.tokens != shard.tokens) return false;
      verify_token_shard(file.bytes(), info, path.string());
      return true;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::corrupt) throw;
      return false;  // it is made anew
    }
  }

  static uint64_t number_of(const std::string& name) {
    return std::strtoull(name.c_str() + name.find('-') + 1, nullptr, 10);
  }

  std::vector<std::string> read_batch() {
    const uint64_t batch_bytes = std::clamp(options_.shard_tokens, kMinBatchBytes, kMaxBatchBytes);
    std::vector<std::string> batch;
    uint64_t bytes = 0;
    std::string document;
    while (bytes < batch_bytes && source_ < manifest_.sources.size()) {
      const TextFile& file = manifest_.sources[source_].file;
      if (!reader_) reader_ = std::make_unique<DocumentReader>(file, options_.documents, position_);
      if (reader_->next(document)) {
        bytes += document.size();
        batch.push_back(std::move(document));
        continue;
      }
      manifest_.invalid_bytes += reader_->invalid_bytes();
      manifest_.binary_files += reader_->skipped() ? 1 : 0;
      done_bytes_ += file.bytes;
      reader_.reset();
      position_ = 0;
      ++source_;
      bytes += 64;  // so that a folder of empty files is not one batch
    }
    const uint64_t done = done_bytes_ + (reader_ ? reader_->position() : position_);
    require(!options_.progress || options_.progress(std::min(done, total_bytes_), total_bytes_),
            ErrorCode::cancelled, "interrupted; the shards that are finished are kept in {}",
            folder_.string());
    return batch;
  }

  void encode_batch(const std::vector<std::string>& batch) {
    std::vector<std::vector<TokenId>> ids(batch.size());
    pool_.for_each(static_cast<int64_t>(batch.size()), [&](int64_t i) {
      const auto at = static_cast<size_t>(i);
      ids[at] = tokenizer_.encode(batch[at], {.add_special = false, .parse_special = false});
    });
    for (size_t i = 0; i < batch.size(); ++i) {
      if (ids[i].empty()) continue;
      Buffer& out = splits_[static_cast<size_t>(split_of(batch[i]))];
      out.documents.push_back(out.tokens.size());
      for (const TokenId id : ids[i]) out.tokens.push_back(static_cast<uint32_t>(id));
      out.tokens.push_back(manifest_.end_token);
      out.text_bytes += batch[i].size();
    }
  }

  Split split_of(const std::string& document) const {
    if (options_.validation <= 0) return Split::train;
    const uint64_t parts[2] = {xxh3(std::as_bytes(std::span(document))), options_.split_seed};
    return unit_interval(xxh3(std::as_bytes(std::span(parts)))) < options_.validation ? Split::validation
                                                                                      : Split::train;
  }

  // Writes what has gathered, both splits, and then where to go on from: never the other way round.
  void write_part() {
    for (const Split split : {Split::train, Split::validation}) {
      Buffer& buffer = splits_[static_cast<size_t>(split)];
      if (buffer.tokens.empty()) continue;
      const std::string name = fmt::format("{}-{:05}.tokens", to_string(split), part_);
      TokenShardInfo info;
      info.text_bytes = buffer.text_bytes;
      info.vocab = manifest_.vocab;
      info.end_token = manifest_.end_token;
      info.tokenizer = fingerprint_bytes(manifest_.tokenizer, "the tokenizer");
      info.sources = manifest_.identity;
      info = write_token_shard(folder_ / name, buffer.tokens, buffer.documents, info);
      manifest_.shards.push_back({name, split, info.tokens, info.documents, info.text_bytes, info.payload});
      buffer = {};
    }
    ++part_;
    ShardManifest partial = manifest_;
    partial.source = source_;
    partial.position = reader_ ? reader_->position() : position_;
    partial.invalid_bytes += reader_ ? reader_->invalid_bytes() : 0;
    write_shard_manifest(folder_ / kPartialManifestName, partial);
  }

  void finish() {
    for (SourceEntry& source : manifest_.sources) {
      const bool same = list_text_files({source.file.path.string()}).front() == source.file;
      require(same, ErrorCode::mismatch, "{} changed while it was indexed; build the shards again",
              source.file.path.string());
      source.xxh3 = xxh3_of_file(source.file.path);
    }
    manifest_.source = manifest_.position = 0;
    write_shard_manifest(folder_ / kManifestName, manifest_);
    remove_file(folder_ / kPartialManifestName);
  }

  ShardReport report(bool reused) const {
    ShardReport out;
    for (const ShardEntry& shard : manifest_.shards) {
      (shard.split == Split::train ? out.train_tokens : out.validation_tokens) += shard.tokens;
      out.documents += shard.documents;
      out.text_bytes += shard.text_bytes;
    }
    out.invalid_bytes = manifest_.invalid_bytes;
    out.binary_files = manifest_.binary_files;
    out.resumed_bytes = reused ? total_bytes_ : resumed_bytes_;
    out.reused = reused;
    return out;
  }
};

}  // namespace

ShardReport build_shards(const std::vector<std::string>& inputs, const Tokenizer& tokenizer,
                         const fs::path& folder, const ShardOptions& options) {
  require(options.validation >= 0 && options.validation < 1, ErrorCode::invalid_argument,
          "the share of validation is {}, but must be at least 0 and below 1", options.validation);
  require(options.shard_tokens > 0 && options.shard_tokens <= kMaxShardTokens, ErrorCode::invalid_argument,
          "shards of {} tokens; at least 1 and at most {} are possible", options.shard_tokens,
          kMaxShardTokens);
  std::error_code error;
  fs::create_directories(folder, error);
  require(!error, ErrorCode::io, "cannot make the folder {}: {}", folder.string(), error.message());
  const FolderLock lock(folder);
  return Builder(inputs, tokenizer, folder, options).run();
}

}  // namespace mneme::train
