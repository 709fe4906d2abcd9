package io.leat.bench;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.BufferedReader;
import java.io.FileReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.LocalDateTime;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Record;

/**
 * Does with Kafka Streams what Leat's normalize does with the mapping examples/chinook/mappings/invoice.yaml, byte for byte.
 *
 * <p>The argument is a file of properties for Kafka Streams. Each line of standard input is one pass, run until the next line
 * comes: an application id, the topic to read and the topic to write. One JVM makes all passes, so the later ones are warm.
 */
public final class Normalize {
  private Normalize() {}

  public static void main(String[] args) throws IOException {
    Properties given = new Properties();
    try (FileReader file = new FileReader(args[0], StandardCharsets.UTF_8)) {
      given.load(file);
    }
    KafkaStreams running = null;
    BufferedReader passes = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = passes.readLine(); line != null; line = passes.readLine()) {
      if (running != null) {
        running.close();
      }
      String[] pass = line.split(" ");
      Properties settings = new Properties();
      settings.putAll(given);
      settings.put("application.id", pass[0]);
      running = start(settings, pass[1], pass[2]);
    }
    if (running != null) {
      running.close();
    }
  }

  private static KafkaStreams start(Properties settings, String input, String output) {
    StreamsBuilder builder = new StreamsBuilder();
    builder.stream(input, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
        .process(Mapping::new)
        .to(output, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
    KafkaStreams streams = new KafkaStreams(builder.build(), settings);
    streams.setUncaughtExceptionHandler(
        e -> {
          e.printStackTrace();
          Runtime.getRuntime().halt(1);
          return StreamThreadExceptionResponse.SHUTDOWN_APPLICATION;
        });
    streams.start();
    return streams;
  }

  record Invoice(long invoice_id, long customer_id, String invoice_date, String status, String currency, BigDecimal total, List<Line> lines) {}

  record Line(long invoice_line_id, Long track_id, BigDecimal unit_price, BigDecimal quantity) {}

  record Money(String amount, String currency) {
    Money(BigDecimal amount, String currency) {
      this(amount.toPlainString(), currency);
    }
  }

  record FinanceLine(String id, String item, String quantity, Money unit_price, Money total) {}

  record FinanceInvoice(
      String tenant, String system, String source_id, String type, String number, String contact_id, String issue_date,
      String currency, String status, List<FinanceLine> lines, Money subtotal, Money total) {}

  /** One for each thread: it is not safe for concurrent use. */
  static final class Mapping extends ContextualProcessor<byte[], byte[], byte[], byte[]> {
    private static final ObjectMapper JSON = new ObjectMapper().disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES);
    private static final ObjectReader READ = JSON.readerFor(Invoice.class);
    private static final ObjectWriter WRITE = JSON.writerFor(FinanceInvoice.class);
    private static final DateTimeFormatter DATE_TIME = DateTimeFormatter.ofPattern("yyyy-MM-dd HH:mm:ss");
    private static final Map<String, String> STATUS = Map.of("open", "open", "paid", "paid", "cancelled", "void");
    private static final UUID OUTPUTS = UUID.fromString("c1ae5b1c-6f0e-5d2a-9c52-7d4f1b8e3a60");

    @Override
    public void process(Record<byte[], byte[]> in) {
      try {
        Invoice invoice = READ.readValue(in.value());
        byte[] value = WRITE.writeValueAsBytes(map(invoice, in.headers()));
        context().forward(in.withValue(value).withHeaders(headers(in.headers())));
      } catch (IOException e) {
        throw new IllegalArgumentException("an invoice is not as the mapping wants it", e);
      }
    }

    private static FinanceInvoice map(Invoice in, Headers headers) throws JsonProcessingException {
      List<FinanceLine> lines = new ArrayList<>(in.lines().size());
      for (Line line : in.lines()) {
        lines.add(
            new FinanceLine(
                Long.toString(line.invoice_line_id()), line.track_id() == null ? null : line.track_id().toString(),
                line.quantity().toPlainString(), new Money(line.unit_price(), in.currency()),
                new Money(line.quantity().multiply(line.unit_price()), in.currency())));
      }
      String status = STATUS.get(in.status());
      if (status == null) {
        throw new IllegalArgumentException("an invoice has an unknown status");
      }
      Money total = new Money(in.total(), in.currency());
      return new FinanceInvoice(
          text(headers, "tenant"), text(headers, "ce_source").substring(1), text(headers, "ce_subject"), "invoice",
          Long.toString(in.invoice_id()), Long.toString(in.customer_id()),
          LocalDateTime.parse(in.invoice_date(), DATE_TIME).toLocalDate().toString(), in.currency(), status, lines, total, total);
    }

    /** The headers of the input, with those that name the kind, the id and the schema of the output. */
    private static Headers headers(Headers in) {
      RecordHeaders out = new RecordHeaders();
      for (Header h : in) {
        switch (h.key()) {
          case "ce_id" -> out.add(h.key(), bytes(outputId(text(in, "ce_id")).toString()));
          case "ce_type" -> out.add(h.key(), bytes("finance.invoice.v1." + operation(text(in, "ce_type"))));
          case "ce_dataschema" -> out.add(h.key(), bytes(SCHEMA));
          default -> out.add(h);
        }
      }
      return out;
    }

    private static final String SCHEMA = "urn:leat:contract:finance.invoice.v1";

    private static String operation(String type) {
      return type.substring(type.lastIndexOf('.') + 1);
    }

    /** A UUID of version 5, from the input's id and the number of the output. */
    private static UUID outputId(String input) {
      try {
        MessageDigest sha1 = MessageDigest.getInstance("SHA-1");
        sha1.update(ByteBuffer.allocate(16).putLong(OUTPUTS.getMostSignificantBits()).putLong(OUTPUTS.getLeastSignificantBits()).array());
        ByteBuffer sum = ByteBuffer.wrap(sha1.digest(bytes(input + "/0")));
        long high = sum.getLong() & ~0xf000L | 0x5000L;
        long low = sum.getLong() & ~(3L << 62) | 2L << 62;
        return new UUID(high, low);
      } catch (NoSuchAlgorithmException e) {
        throw new IllegalStateException(e);
      }
    }

    private static String text(Headers headers, String name) {
      return new String(headers.lastHeader(name).value(), StandardCharsets.UTF_8);
    }

    private static byte[] bytes(String text) {
      return text.getBytes(StandardCharsets.UTF_8);
    }
  }
}
