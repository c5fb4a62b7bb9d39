// What a backend may do later, or again, without being asked piece by piece.
#pragma once

#include <cstdint>
#include <functional>

namespace tempora {

// Operations that are asked for again and again with the same arguments. What they read may change in between, where it
// lies may not.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void run() = 0;
};

// Asks for the operations each time.
class PlainRecording : public Recording {
 public:
  explicit PlainRecording(std::function<void()> operations) : operations_(std::move(operations)) {}
  void run() override { operations_(); }

 private:
  std::function<void()> operations_;
};

// Bytes on their way from the device.
class Arrival {
 public:
  virtual ~Arrival() = default;
  // Waits for them. They are there as long as this is.
  virtual const std::uint8_t* wait() = 0;
};

}  // namespace tempora
