// A partner's receiver as many are written: it parses the body, and verifies what it writes again.
// argv: the secret, the standardSecret, the public key. Prints one line of JSON a delivery.
import { createHmac, createPublicKey, timingSafeEqual, verify } from 'node:crypto'
import { createServer } from 'node:http'

const [secret, standard, publicKey] = process.argv.slice(2)
const same = (a, b) => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b))

const server = createServer((request, response) => {
  const chunks = []
  request.on('data', chunk => chunks.push(chunk))
  request.on('end', () => {
    const raw = Buffer.concat(chunks)
    const event = JSON.parse(raw)
    const again = JSON.stringify(event) // not the raw body: what Express' json() leaves one with
    const h = request.headers
    const plain = createHmac('sha256', secret).update(again).digest('hex')
    const signed = `${h['webhook-id']}.${h['webhook-timestamp']}.${again}`
    const key = Buffer.from(standard.replace('whsec_', ''), 'base64')
    const token = 'v1,' + createHmac('sha256', key).update(signed).digest('base64')
    const tokens = h['webhook-signature'].split(' ')
    const der = Buffer.concat([
      Buffer.from('302a300506032b6570032100', 'hex'),
      Buffer.from(publicKey.replace('whpk_', ''), 'base64'),
    ])
    const pair = createPublicKey({ key: der, format: 'der', type: 'spki' })
    const asymmetric = tokens
      .filter(one => one.startsWith('v1a,'))
      .some(one => verify(null, Buffer.from(signed), pair, Buffer.from(one.slice(4), 'base64')))
    console.log(JSON.stringify({
      type: event.type,
      title: event.data.escrow?.title,
      amount: event.data.escrow?.amount,
      same: again === raw.toString(),
      plain: same(plain, h['x-webhook-signature']),
      standard: tokens.some(one => same(one, token)),
      asymmetric,
    }))
    response.end()
  })
})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
