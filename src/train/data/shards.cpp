#include "train/data/shards.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/checksum.h"
#include "core/fail.h"
#include "train/data/shard_manifest.h"

namespace mneme::train {

std::string_view to_string(Split split) noexcept {
  return split == Split::train ? "train" : "validation";
}

struct ShardSet::Shard {
  MappedFile file;
  TokenShardInfo info;
  uint64_t first_token = 0, first_document = 0;  // in the stream of the set

  void copy(uint64_t begin, std::span<int64_t> out) const {
    file.check_not_truncated();
    const std::byte* const tokens = token_shard_tokens(file.bytes(), info).data();
    const auto convert = [&](const auto* ids) { std::copy_n(ids + begin, out.size(), out.begin()); };
    if (info.token_bytes() == 2)
      convert(reinterpret_cast<const uint16_t*>(tokens));
    else
      convert(reinterpret_cast<const uint32_t*>(tokens));
  }
};

ShardSet ShardSet::open(const fs::path& folder, Split split) {
  return open(folder, split, Options{});
}

ShardSet ShardSet::open(const fs::path& folder, Split split, const Options& options) {
  const auto manifest = read_shard_manifest(folder / kManifestName);
  if (!manifest)
    fail(ErrorCode::not_found, "{} holds no finished token shards ({} is missing); they are built from texts",
         folder.string(), kManifestName);
  if (options.check_sources)
    for (const SourceEntry& source : manifest->sources)
      if (const std::string change = source_change(source); !change.empty())
        fail(ErrorCode::mismatch, "{}: the text changed since it was indexed: {}; build the shards again",
             folder.string(), change);
  ShardSet out;
  out.folder_ = folder;
  out.tokenizer_hash_ = manifest->tokenizer;
  out.vocab_ = manifest->vocab;
  out.end_token_ = manifest->end_token;
  const auto tokenizer = fingerprint_bytes(manifest->tokenizer, kManifestName);
  Xxh3 sum;
  for (const ShardEntry& entry : manifest->shards) {
    if (entry.split != split) continue;
    const fs::path path = folder / entry.file;
    auto shard = std::make_shared<Shard>();
    shard->file = MappedFile(path, LoadMode::mmap);
    shard->info = read_token_shard_header(shard->file.bytes(), path.string());
    const TokenShardInfo& info = shard->info;
    const bool same = info.payload == entry.payload && info.tokens == entry.tokens &&
                      info.documents == entry.documents && info.sources == manifest->identity &&
                      info.tokenizer == tokenizer && info.vocab == manifest->vocab &&
                      info.end_token == manifest->end_token && info.text_bytes == entry.text_bytes;
    require(same, ErrorCode::mismatch,
            "{} is not the shard that {} lists: it changed since it was indexed; build the shards again",
            path.string(), kManifestName);
    if (options.verify) shard->file.check_not_truncated();
    if (options.verify) verify_token_shard(shard->file.bytes(), info, path.string());
    shard->first_token = out.tokens_;
    shard->first_document = out.documents_;
    out.tokens_ += info.tokens;
    out.documents_ += info.documents;
    out.text_bytes_ += info.text_bytes;
    sum.update(std::as_bytes(std::span(&info.payload, 1)));
    out.shards_.push_back(std::move(shard));
  }
  out.hash_ = sum.hex();
  return out;
}

void ShardSet::require_tokenizer(std::string_view fingerprint, std::string_view what) const {
  require(
      fingerprint == tokenizer_hash_, ErrorCode::mismatch,
      "{}: the tokens were made with another tokenizer than {} (fingerprints {:.12} and {:.12}); build the "
      "shards again, or name the tokenizer that made them",
      folder_.string(), what, tokenizer_hash_, fingerprint);
}

void ShardSet::read(uint64_t first, std::span<int64_t> out) const {
  require(first <= tokens_ && out.size() <= tokens_ - first, ErrorCode::limit,
          "{}: tokens {} to {} of {} were asked for", folder_.string(), first, first + out.size(), tokens_);
  if (out.empty()) return;
  auto shard = std::upper_bound(shards_.begin(), shards_.end(), first,
                                [](uint64_t at, const auto& one) { return at < one->first_token; }) -
               1;
  while (!out.empty()) {
    const uint64_t begin = first - (*shard)->first_token;
    const size_t count = static_cast<size_t>(std::min<uint64_t>(out.size(), (*shard)->info.tokens - begin));
    (*shard)->copy(begin, out.first(count));
    out = out.subspan(count);
    first += count;
    ++shard;
  }
}

uint64_t ShardSet::document_start(uint64_t index) const {
  require(index < documents_, ErrorCode::limit, "{}: document {} of {} was asked for", folder_.string(),
          index, documents_);
  const Shard& shard =
      **(std::upper_bound(shards_.begin(), shards_.end(), index,
                          [](uint64_t at, const auto& one) { return at < one->first_document; }) -
         1);
  shard.file.check_not_truncated();
  return shard.first_token +
         token_shard_documents(shard.file.bytes(), shard.info)[index - shard.first_document];
}

}  // namespace mneme::train
