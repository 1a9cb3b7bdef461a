// Makes batches ahead of the training step, on one thread of its own, in order. Batch k is a pure function of
// k, so a loader can start anywhere. An exception of `make` is thrown by next() in the place of its batch, and
// by every later call.
#pragma once
#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace modrwkv {

template <class Batch>
class Loader {
 public:
  Loader(std::function<Batch(int64_t)> make, int64_t first, size_t ahead = 4)
      : make_(std::move(make)), ahead_(std::max<size_t>(1, ahead)), thread_([this, first] { work(first); }) {}

  ~Loader() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Loader(const Loader&) = delete;

  Batch next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !ready_.empty() || error_; });
    if (ready_.empty()) std::rethrow_exception(error_);
    Batch batch = std::move(ready_.front());
    ready_.pop_front();
    lock.unlock();
    changed_.notify_all();
    return batch;
  }

 private:
  void work(int64_t k) {
    try {
      for (;; ++k) {
        Batch batch = make_(k);
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stop_ || ready_.size() < ahead_; });
        if (stop_) return;
        ready_.push_back(std::move(batch));
        lock.unlock();
        changed_.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
      changed_.notify_all();
    }
  }

  std::function<Batch(int64_t)> make_;
  size_t ahead_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> ready_;
  std::exception_ptr error_;
  bool stop_ = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace modrwkv
