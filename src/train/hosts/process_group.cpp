#include "train/hosts/process_group.h"

#include "core/fail.h"

namespace mneme::train {
namespace {

/// Runs `operation` on a contiguous CPU tensor with the values of `values` and puts its result back.
template <class Operation>
void through_cpu(const Tensor& values, const Operation& operation) {
  at::NoGradGuard no_grad;
  Tensor flat = values.detach().to(at::kCPU).contiguous();
  operation(flat);
  if (!flat.is_alias_of(values)) values.detach().copy_(flat);
}

/// Runs `operation` on all tensors laid end to end and puts its result back.
template <class Operation>
void through_bucket(const std::vector<Tensor>& values, const Operation& operation) {
  at::NoGradGuard no_grad;
  std::vector<Tensor> parts;
  parts.reserve(values.size());
  for (const Tensor& value : values) {
    require(value.scalar_type() == at::kFloat, ErrorCode::invalid_argument,
            "tensors that are exchanged together must be float32");
    parts.push_back(value.detach().to(at::kCPU).reshape({-1}));
  }
  Tensor bucket = at::cat(parts);
  operation(bucket);
  int64_t begin = 0;
  for (const Tensor& value : values) {
    value.detach().copy_(bucket.narrow(0, begin, value.numel()).view(value.sizes()));
    begin += value.numel();
  }
}

}  // namespace

void ProcessGroup::all_reduce_sum(const Tensor& values) {
  if (size_ > 1) through_cpu(values, [&](Tensor& flat) { sum(flat); });
}

void ProcessGroup::all_reduce_mean(const Tensor& values) {
  if (size_ == 1) return;
  require(at::isFloatingType(values.scalar_type()), ErrorCode::invalid_argument,
          "a mean over processes needs a floating type");
  through_cpu(values, [&](Tensor& flat) {
    sum(flat);
    flat.div_(static_cast<double>(size_));
  });
}

void ProcessGroup::all_reduce_mean(const std::vector<Tensor>& values) {
  if (size_ == 1 || values.empty()) return;
  through_bucket(values, [&](Tensor& bucket) {
    sum(bucket);
    bucket.div_(static_cast<double>(size_));
  });
}

void ProcessGroup::broadcast(const Tensor& values, uint32_t root) {
  require(root < size_, ErrorCode::invalid_argument, "there is no process {} among {}", root, size_);
  if (size_ > 1) through_cpu(values, [&](Tensor& flat) { copy_from(flat, root); });
}

void ProcessGroup::broadcast(const std::vector<Tensor>& values, uint32_t root) {
  require(root < size_, ErrorCode::invalid_argument, "there is no process {} among {}", root, size_);
  if (size_ > 1 && !values.empty()) through_bucket(values, [&](Tensor& bucket) { copy_from(bucket, root); });
}

std::vector<Tensor> ProcessGroup::all_to_all(const std::vector<Tensor>& parts) {
  require(parts.size() == size_, ErrorCode::invalid_argument, "{} parts for {} processes", parts.size(),
          size_);
  if (size_ == 1) return parts;
  at::NoGradGuard no_grad;
  std::vector<int64_t> sent;
  std::vector<Tensor> contiguous;
  for (const Tensor& part : parts) {
    sent.push_back(part.size(0));
    contiguous.push_back(part.detach().to(at::kCPU).contiguous());
  }
  const std::vector<int64_t> one(size_, 1);
  const Tensor counts = exchange(at::tensor(sent, at::kLong), one, one);
  const std::vector<int64_t> got(counts.data_ptr<int64_t>(), counts.data_ptr<int64_t>() + size_);
  const Tensor all = exchange(at::cat(contiguous), sent, got).to(parts[0].device());
  return all.split_with_sizes(got);
}

bool ProcessGroup::any(bool yes) {
  const Tensor count = at::full({1}, yes ? 1 : 0, at::kLong);
  all_reduce_sum(count);
  return count.item<int64_t>() > 0;
}

void ProcessGroup::barrier() {
  if (size_ > 1) wait_for_all();
}

}  // namespace mneme::train
