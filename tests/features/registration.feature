Feature: Registration
  Nodes come, change and go; a queen that is away stops nobody's work.

  @OC-POOL-3080
  Scenario: A hive registers, and leaves when it stops
    Given a queen is running
    And the hive of node "gpu-1" is running
    Then the queen should list node "gpu-1" as "alive"
    When the hive stops
    Then the queen should not list node "gpu-1"

  @OC-POOL-3080
  Scenario: A change of state is pushed at once
    Given a queen is running
    And the hive of node "gpu-1" is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    Then the queen should know pool "pool-0" of node "gpu-1" as "ready"
    And the queen should not show a worker's token
    When I drain pool "pool-0" within 1 s
    Then the queen should know pool "pool-0" of node "gpu-1" as "offline"

  @OC-POOL-3080
  Scenario: A hive serves on without its queen
    Given a queen is running
    And the hive of node "gpu-1" is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    Then the hive should be registered with the queen
    When the queen is killed
    Then pool "pool-0" should still be ready

  @OC-POOL-3080
  Scenario: A hive registers again with a queen that does not know it
    Given a queen is running
    And the hive of node "gpu-1" is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    Then the hive should be registered with the queen
    When the queen is killed
    And a queen that knows nobody takes its place
    Then the queen should list node "gpu-1" as "alive"
    And the queen should know pool "pool-0" of node "gpu-1" as "ready"
    And pool "pool-0" should still be ready

  @OC-POOL-3081
  Scenario: A cordoned node gets no new work until it is wanted again
    Given a queen is running
    And the hive of node "gpu-1" is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    Then the gateway should list the model "llama-3.1-8b-instruct"
    When I cordon node "gpu-1"
    Then the queen should list node "gpu-1" as "cordoned"
    And pool "pool-0" should still be ready
    When I uncordon node "gpu-1"
    Then the queen should list node "gpu-1" as "alive"
    When I ask the gateway to complete "Hello" with model "llama-3.1-8b-instruct"
    Then the completion should have text and usage

  @OC-POOL-3081 @slow
  Scenario: A node that falls silent is lost, and found again
    Given a queen is running
    And the hive of node "gpu-1" is running
    Then the queen should list node "gpu-1" as "alive"
    When the hive is killed
    Then the queen should list node "gpu-1" as "lost"
    When a new hive starts in its place
    Then the queen should list node "gpu-1" as "alive"
