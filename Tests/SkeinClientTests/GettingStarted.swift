// The example of the documentation's first page, compiled here and run by `DocumentationTests`,
// which also compares the text between the marks with the page's.

// begin
import SkeinClient

func greet(endpoints: [String]) async throws {
  let client = try await SkeinClient.connect(endpoints: endpoints)
  try await client.declareQueue("greetings")

  // One message: this returns when it is on the disks of a majority of the nodes.
  let receipt = try await client.publish(Message("hello"), to: "greetings")
  print("stored as \(receipt.id)")

  // Many messages: each send waits only while a thousand are unconfirmed.
  let publisher = try await client.publisher(for: "greetings", window: 1000)
  for number in 1...10 {
    try await publisher.send(Message("hello \(number)"))
  }
  try await publisher.flush()

  // Take them out again. A message that is not acknowledged comes back.
  var count = 0
  for try await delivery in try await client.consume("greetings", prefetch: 100) {
    print(delivery.text, "attempt \(delivery.attempt)")
    try await delivery.acknowledge()
    count += 1
    if count == 11 { break }
  }
  await client.close()
}
// end
